"""The configuration of ``publish``: which place is stronger, keys and values that are refused, strangers' sources."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmclock_async._cli.configuration.choice import ChosenSources
from vmclock_async._cli.configuration.layers import command_layer
from vmclock_async._cli.configuration.settings import Settings, read_settings
from vmclock_async._cli.configuration.tables import Configuration
from vmclock_async._cli.failures import ConfigurationError
from vmclock_async.errors import UnknownSourceError

Read = Callable[..., Settings]
Install = Callable[[str, str], None]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a configuration from the text of a file, variables, ``--set`` and the command's words."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("VMCLOCK_ASYNC_"):
            monkeypatch.delenv(name)

    def read(text: str = "", *sets: str, words: dict[str, Any] | None = None, **variables: str) -> Settings:
        Path("publish.toml").write_text(text)
        for name, value in variables.items():
            monkeypatch.setenv(f"VMCLOCK_ASYNC_{name}", value)
        return read_settings(Path("publish.toml"), sets, command_layer(publisher=words or {}))

    return read


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with the source *name*, whose settings have *fields*."""

    def install(name: str, fields: str) -> None:
        module = f"stranger_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(
            "from pydantic import BaseModel, Field\n"
            f"class Settings(BaseModel):\n    {fields}\n"
            "class Source:\n    settings_type = Settings\n"
            "    def __init__(self, settings): self.settings = settings\n"
            "    async def run(self, emit): pass\n"
        )
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[vmclock_async.sources]\n{name} = {module}:Source\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_later_place_is_stronger(read: Read) -> None:
    """Defaults, the file, variables, --set, the command's own words: and of each value it is known which one it was."""
    key = ("publisher", "segment")
    file, variable, sets = (
        '[publisher]\nsegment = "/file"\n',
        {"PUBLISHER__SEGMENT": "/variable"},
        "publisher.segment=/set",
    )
    steps = [
        (read(), None, None),
        (read(file), "/file", "publish.toml"),
        (read(file, **variable), "/variable", "VMCLOCK_ASYNC_PUBLISHER__SEGMENT"),
        (read(file, sets, **variable), "/set", "--set publisher.segment"),
        (read(file, sets, words={"segment": Path("/word")}, **variable), "/word", "--segment"),
    ]
    for settings, value, origin in steps:
        segment = settings.configuration.publisher.segment
        assert (segment and str(segment), settings.origin(key)) == (value, origin)


def test_tables_of_several_places_are_one(read: Read) -> None:
    """A place replaces single keys and lists, not whole tables. The short form of --set means the long one."""
    settings = read(
        '[publisher]\nsources = ["kernel"]\n[sources.chrony]\naddress = "h:1"\nsmeared = true\n',
        "chrony.address=h:2",
        "sources.chrony.poll_interval=3",
        SOURCES__CHRONY__REFERENCE_ERROR="0.5",
        PUBLISHER__SOURCES="device, chrony",
    )
    chosen = ChosenSources(settings)
    assert chosen.names == ["device", "chrony"]
    given = {"address": "h:2", "smeared": True, "poll_interval": "3", "reference_error": "0.5"}
    assert chosen.options("chrony") == given


@pytest.mark.parametrize("variable", ["SEGMENT", "SOURCES", "EVENT", "JUMP_NS", "DEBUG", "METRICS_SERVICE_HOST"])
def test_other_variables_are_no_keys(read: Read, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other commands, hooks, the build, Kubernetes or strangers call so changes nothing of the configuration."""
    monkeypatch.setenv("ANOTHER_PROGRAMS__OTHER__KEY", "1")
    assert read(**{variable: "kernel,replay"}).configuration == Configuration()


MISSPELT: dict[str, tuple[str, tuple[str, ...], dict[str, str], str]] = {
    "a table": ("[metrik]", (), {}, "publish.toml: metrik: no such key; did you mean metrics?"),
    "a source's table": ("[kernl]", (), {}, "publish.toml: kernl: no such key; did you mean sources.kernel?"),
    "a key": (
        "[metrics]\nadress = ':1'",
        (),
        {},
        "publish.toml: metrics.adress: no such key; did you mean metrics.address?",
    ),
    "a key of another table": (
        "[publisher]\naddress = ':1'",
        (),
        {},
        "publish.toml: publisher.address: no such key; did you mean metrics.address?",
    ),
    "nothing near": (
        "[logs]\nx = 1",
        (),
        {},
        "publish.toml: logs.x: no such key; there are logs.level, logs.format",
    ),
    "no table": ("logs = 1", (), {}, "publish.toml: logs: it must be a table, not 1; set keys of it"),
    "a source": (
        "[sources.kernl]",
        (),
        {},
        "publish.toml: sources.kernl: not among the sources: kernel; did you mean sources.kernel?",
    ),
    "a source that is not chosen": (
        "[sources.device]",
        (),
        {},
        "publish.toml: sources.device: not among the sources: kernel; name it in publisher.sources too, or remove ",
    ),
    "an option": (
        "[sources.kernel]\nasumed_error = 1",
        (),
        {},
        "publish.toml: sources.kernel.asumed_error: no such key; did you mean sources.kernel.assumed_error?",
    ),
    "an option in --set": (
        "",
        ("kernel.asumed_error=1",),
        {},
        "--set kernel.asumed_error: no such key; did you mean kernel.assumed_error?",
    ),
    "a key in --set": ("", ("logs.levels=info",), {}, "--set logs.levels: no such key; did you mean logs.level?"),
    "a variable": (
        "",
        (),
        {"METRICS__ADRESS": ":1"},
        "VMCLOCK_ASYNC_METRICS__ADRESS: no such key; did you mean VMCLOCK_ASYNC_METRICS__ADDRESS?",
    ),
    "a variable's table": (
        "",
        (),
        {"METRIC__ADDRESS": ":1"},
        "VMCLOCK_ASYNC_METRIC__ADDRESS: no such key; did you mean VMCLOCK_ASYNC_METRICS__ADDRESS?",
    ),
    "a variable with one underscore": (
        "",
        (),
        {"METRICS_ADDRESS": ":1"},
        "VMCLOCK_ASYNC_METRICS_ADDRESS: no such key; did you mean VMCLOCK_ASYNC_METRICS__ADDRESS?",
    ),
    "a variable of a source": (
        "",
        (),
        {"SOURCES_KERNEL_X": "1"},
        "VMCLOCK_ASYNC_SOURCES_KERNEL_X: no such key; did you mean VMCLOCK_ASYNC_SOURCES__KERNEL__OPTION?",
    ),
    "a variable's option": (
        "",
        (),
        {"SOURCES__KERNEL__POL_INTERVAL": "1"},
        "VMCLOCK_ASYNC_SOURCES__KERNEL__POL_INTERVAL: no such key; did you mean VMCLOCK_ASYNC_SOURCES__KERNEL__POLL_",
    ),
}
"""A file, ``--set``, variables, and what is said."""

WRONG: dict[str, tuple[str, tuple[str, ...], dict[str, str], str]] = {
    "a word, wrong": (
        "[logs]\nlevel = 'loud'",
        (),
        {},
        "publish.toml: logs.level: Input should be 'debug', 'info', 'warning' or 'error', not 'loud'",
    ),
    "an address, wrong": (
        "",
        ("metrics.address=x",),
        {},
        "--set metrics.address: 'x' is no address to listen on: ",
    ),
    "a variable, wrong": (
        "[metrics]\naddress = ':1'",
        (),
        {"METRICS__ADDRESS": "::1:1"},
        "VMCLOCK_ASYNC_METRICS__ADDRESS: '::1:1' is no address to listen on: ",
    ),
    "a name, wrong": (
        "[publisher]\nsources = ['kernl']",
        (),
        {},
        "publish.toml: publisher.sources: kernl: no source of this name; did you mean kernel?",
    ),
    "no name, wrong": (
        "[publisher]\nsources = []",
        (),
        {},
        "publish.toml: publisher.sources: no source is named; ",
    ),
    "a number for a name, wrong": (
        "[publisher]\nsources = ['kernel', 3]",
        (),
        {},
        "publish.toml: publisher.sources: Input should be a valid string, not 3",
    ),
    "a name twice, wrong": (
        "",
        (),
        {"PUBLISHER__SOURCES": "kernel,kernel"},
        "VMCLOCK_ASYNC_PUBLISHER__SOURCES: a source is named twice: kernel, kernel",
    ),
    "an option, wrong": (
        "[sources.kernel]\npoll_interval = -1",
        (),
        {},
        "publish.toml: sources.kernel.poll_interval: Input should be greater than 0, not -1",
    ),
    "an option in --set, wrong": (
        "[sources.kernel]\npoll_interval = 1",
        ("kernel.poll_interval=-1",),
        {},
        "--set kernel.poll_interval: Input should be greater than 0, not '-1'",
    ),
    "an option that is a table, wrong": (
        "[sources.kernel.poll_interval]\nseconds = 1",
        (),
        {},
        "publish.toml: sources.kernel.poll_interval: Input should be a valid number, not {'seconds': 1}",
    ),
}
"""The same, for values."""


@pytest.mark.parametrize("kind", [*MISSPELT, *WRONG])
def test_what_is_not_allowed_is_named_with_its_place(read: Read, kind: str) -> None:
    """A key that is not there with the nearest one; a value with what is allowed, and what was seen: on one line."""
    text, sets, variables, said = {**MISSPELT, **WRONG}[kind]
    names_sources = "sources = [" in text or "PUBLISHER__SOURCES" in variables
    words = {} if names_sources else {"sources": ["kernel"]}
    with pytest.raises(ConfigurationError) as caught:
        ChosenSources(read(text, *sets, words=words, **variables)).build()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_source_that_the_command_line_misspells_is_no_matter_of_the_file(read: Read) -> None:
    """It is the error that it would be without a file."""
    with pytest.raises(UnknownSourceError, match="did you mean kernel"):
        ChosenSources(read(words={"sources": ["kernl"]}))


def test_options_of_a_source_are_its_own_matter(read: Read, install: Install) -> None:
    """Aliases, nested tables, a name that no variable can have, settings that take any key: as the model says."""
    install("far-away", "host: str = Field('x', alias='Host'); more: dict[str, str] = {}")
    install("open", "model_config = {'extra': 'allow'}")
    settings = read(
        "[publisher]\nsources = ['far-away', 'open']\n[sources.far-away]\nHost = 'a'\n[sources.open]\nany = 1\n",
        "far-away.more.key=7",
        SOURCES__OPEN__OTHER="2",
        SOURCES__FAR_AWAY__MORE__OTHER="8",
    )
    built: dict[str, Any] = dict(ChosenSources(settings).build())
    assert (built["far-away"].settings.host, built["far-away"].settings.more) == ("a", {"key": "7", "other": "8"})
    assert built["open"].settings.model_dump() == {"any": 1, "other": "2"}


def test_name_of_a_field_that_has_an_alias_is_refused(read: Read, install: Install) -> None:
    """pydantic passes it over, so that the default would hold."""
    install("aliased", "host: str = Field('x', alias='Host')")
    with pytest.raises(ConfigurationError, match=r"aliased\.host: no such key; did you mean aliased\.Host\?"):
        ChosenSources(read("", "aliased.host=a", words={"sources": ["aliased"]}))


def test_option_that_a_source_would_pass_over_is_refused(read: Read, install: Install) -> None:
    """Also where the model of a stranger's source ignores what it does not know, as models do by default."""
    install("lax", "host: str = 'x'")
    with pytest.raises(ConfigurationError, match=r"lax\.hots: no such key; did you mean lax\.host\?"):
        ChosenSources(read("", "lax.hots=a", words={"sources": ["lax"]}))
