"""README and the manual do what they say: each block of code in them is run, or else checked for syntax.

A block's language says what becomes of it:

* ``python``: run, in the order of the page and in one namespace, beside a segment that has the time. Where it has a
  title, that is the file which has the same text, and which a test of its own runs. Functions ``test_...`` are run by
  pytest.
* ``console``: typed into a terminal; the output has to be like the one that is shown.
* ``sh``: commands that need root, a network or minutes; checked by bash and, as far as they are ours, by us.
* ``ini``, ``json``, ``toml``: parsed. ``text``: left alone.
"""

import ast
import configparser
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

import vmclock_async
from kit.command_lines import check_command
from kit.console import Console, commands_in
from kit.programs import started
from vmclock_async._cli.configuration.choice import ChosenSources
from vmclock_async._cli.configuration.layers import Layer
from vmclock_async._cli.configuration.settings import Settings
from vmclock_async._cli.configuration.tables import KEYS
from vmclock_async.testing import PlayedSegment

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PRACTICE: Final = "/dev/shm/vmclock-demo"
"""The directory of the pages' own segment."""
WORDS: Final = {
    "VMClock": r"VMClock",
    "page": r"pages?",
    "segment": r"segments?",
    "body": r"body|bodies",
    "marker": r"markers?",
    "generation": r"generations?",
    "fence": r"fences?",
    "epoch": r"epochs?",
    "bound": r"bounds?",
    "free-running": r"free-running",
    "token": r"tokens?",
    "incarnation": r"incarnations?",
}
"""The glossary's, and what they look like in a text."""
EVERYDAY: Final = {"device", "source", "status"}
"""Words of the glossary that texts also use in their ordinary sense: not every page links them."""


def blocks(document: Document, evaluators: dict[str, Callable[[Example], None]]) -> Iterable[Region]:
    """The code blocks of *document*, each with what checks it."""
    for region in FencedCodeBlockLexer(r"\w+[^\n]*")(document):
        language, _, rest = region.lexemes["language"].partition(" ")
        assert language in evaluators, f"{document.path}: no test knows what to do with a block of {language}"
        title = re.fullmatch(r'title="(.+)"', rest)
        yield Region(
            region.start, region.end, (region.lexemes["source"], title and title[1]), evaluators[language]
        )


@contextmanager
def machine_to_which_things_happen(played: PlayedSegment, program: str) -> Iterator[None]:
    """While a *program* waits for events, the machine is restored, over and over."""
    over = threading.Event()

    def play() -> None:
        while not over.wait(0.02):
            played.restore()

    playing = threading.Thread(target=play)
    if ".events()" in program:
        playing.start()
    try:
        yield
    finally:
        over.set()
        if playing.ident is not None:
            playing.join()


def run_python(example: Example, *, played: PlayedSegment, practice: str, directory: Path) -> None:
    """Run a program, or the part of one."""
    source, title = example.parsed
    source = source.replace(PRACTICE, practice)
    if title is not None:
        assert title.startswith("examples/")
        assert (ROOT / title).read_text(encoding="utf-8") == source, f"{title} is not as {example.path} shows it"
        return
    tree = ast.parse("\n" * example.line + source, example.path)
    if any(getattr(node, "name", "").startswith("test_") for node in tree.body):
        (directory / "test_shown.py").write_text(source, encoding="utf-8")
        run_pytest(directory / "test_shown.py")
        return
    if "sleep_forever()" in source:
        run_until_restored(source, played, directory)
        return
    with machine_to_which_things_happen(played, source):
        example.namespace["__name__"] = "__main__"
        exec(compile(tree, example.path, "exec"), example.namespace)


def run_until_restored(source: str, played: PlayedSegment, directory: Path) -> None:
    """Run a program that has no end until it has printed something, and something else after a restore."""
    (directory / "shown.py").write_text(source, encoding="utf-8")
    with started() as start:
        program = start(directory / "shown.py", environment={"PYTHONUNBUFFERED": "1"})
        assert program.stdout is not None
        assert program.stdout.readline()
        played.restore()
        assert program.stdout.readline()


def run_pytest(path: Path) -> None:
    """Run a test as a reader would, without what this project's own tests ask for."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "examples/pytest.ini"), str(path)]
    command += [option for plugin in ("cacheprovider", "timeout", "asyncio") for option in ("-p", f"no:{plugin}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout


def run_console(example: Example, *, console: Console) -> None:
    """Type the commands of a block."""
    for command, shown in commands_in(example.parsed[0]):
        console.type(command, shown)


def check_shell(example: Example) -> None:
    """Commands that are not run: bash can parse them, and what they ask of this project is there."""
    source: str = example.parsed[0]
    subprocess.run(["bash", "-n"], input=source, text=True, check=True)
    for target in re.findall(r"^make (\w+)", source, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target
    for line in source.splitlines():
        if "vmclock-async " in line:
            words = line.partition("vmclock-async ")[2].partition(" > ")[0]
            check_command(shlex.split(words, comments=True))


def check_json(example: Example) -> None:
    """JSON."""
    json.loads(example.parsed[0])


def check_toml(example: Example) -> None:
    """TOML; what is a configuration of the publisher is one that ``publish --check`` takes."""
    text = example.parsed[0]
    if tomllib.loads(text).keys() & {*KEYS, "sources"}:
        ChosenSources(Settings([Layer(tomllib.loads(text), str)])).build()


def check_ini(example: Example) -> None:
    """A unit of systemd: sections of names and values, where a name may come twice."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.read_string(example.parsed[0])
    assert parser.sections()
    for name in parser.sections():
        if "vmclock-async " in (started := parser[name].get("execstart", "")):
            check_command(shlex.split(started.partition("vmclock-async ")[2]))


@pytest.fixture
def evaluators(
    segment_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Callable[[Example], Any]]]:
    """What is done with a block, by its language."""
    monkeypatch.setenv("VMCLOCK_ASYNC_SEGMENT", str(segment_path))
    monkeypatch.chdir(ROOT)
    practice = str(segment_path.parent / "practice")
    with (
        PlayedSegment(segment_path.parent) as played,
        Console(ROOT, {PRACTICE: practice}, {"XDG_RUNTIME_DIR": str(tmp_path)}) as console,
    ):
        yield {
            "python": partial(run_python, played=played, practice=practice, directory=tmp_path),
            "console": partial(run_console, console=console),
            "sh": check_shell,
            "ini": check_ini,
            "json": check_json,
            "toml": check_toml,
            "text": lambda example: None,
        }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_does_what_it_says(page: Path, evaluators: dict[str, Callable[[Example], None]]) -> None:
    """Every block of code on the page runs, prints what the page says, or is at least well formed."""
    for example in Document.parse(str(page), lambda document: blocks(document, evaluators)).examples():
        example.evaluate()


NOT_PROSE: Final = r"^ *```.*?^ *```$|^#[^\n]*$|^:::[^\n]*$|`[^`\n]*`"
"""Code, headings, and what the docstrings fill in."""


def first_use(text: str, looks_like: str) -> str | None:
    """The first use of a word in *text*: where a link to the glossary may be, that; else the word. None: no use."""
    link = r"\[[^\]]*\]\([^)]*\)"
    for found in re.finditer(rf"{NOT_PROSE}|{link}|(?<![\w-])({looks_like})(?![\w-])", text, re.M | re.S | re.I):
        if found[1] or ("glossary.md#" in found[0] and re.search(rf"\[.*\b({looks_like})\b.*\]", found[0], re.I)):
            return found[0]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_first_use_of_a_term_leads_to_the_glossary(page: Path) -> None:
    """Each of the glossary's words is a link to it where a page first uses the word."""
    text = page.read_text(encoding="utf-8")
    if page.name == "glossary.md":
        assert set(re.findall(r"^## (.*)$", text, re.MULTILINE)) == {*WORDS, *EVERYDAY}
        return
    for word, looks_like in WORDS.items():
        found = first_use(text, looks_like)
        assert found is None or found.endswith(f"glossary.md#{word.lower()})"), f"{page}: first use of {found!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    """What a page links to is in the repository; that it has the section, ``make docs`` looks."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_reference_has_every_public_module() -> None:
    """A module that users may import has a page, made from its docstrings."""
    modules = {module.name for module in pkgutil.iter_modules(vmclock_async.__path__)}
    pages = {page.stem for page in (ROOT / "docs/reference/python").iterdir()}
    assert pages == {name for name in modules if not name.startswith("_")}


def test_readme_stays_short() -> None:
    """A README of at most 700 words is read; the manual in ``docs/`` has the rest."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_tutorial_does_not_run_out() -> None:
    """The recordings that it publishes begin again until the reader goes on."""
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    replays = re.findall(r"^\$ (.*publish replay.*) &$", text, re.MULTILINE)
    assert len(replays) == 2
    assert all(re.fullmatch(r"while .*; do :; done", replay) for replay in replays)
