"""``publish --check`` and ``--schema``: settings that can be read again, and nothing is published."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from kit.replays import ROOT
from vmclock_async._cli import main
from vmclock_async._cli.configuration.schema import configuration_schema
from vmclock_async.sources import installed_sources

Publish = Callable[..., tuple[int, str, str]]
EXAMPLE = ROOT / "deploy/vmclock-async.toml"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Publish:
    """Runs ``publish`` in this process: status, stdout and stderr."""
    for name in os.environ:
        if name.startswith("VMCLOCK_ASYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "none")  # what would be published in spite of all is in no one's way

    def publish(*args: object, **variables: str) -> tuple[int, str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        status = main(["publish", *map(str, args)])
        return (status, *capsys.readouterr())

    return publish


CONFIGURATIONS = {
    "the example": EXAMPLE.read_text().replace("/run/vmclock-async/", "none/"),
    "little": '[publisher]\nsources = ["kernel"]\n',
    "an option that has no default": '[publisher]\nsources = ["replay"]\n[sources.replay]\npath = "x"\nloop = true\n',
    "auto": '[publisher]\nsegment = "none/shm0"\n[sources.device]\npath = "none"\n',
}


@pytest.mark.long
@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_what_is_printed_is_a_configuration_of_the_same_settings(publish: Publish, kind: str) -> None:
    """Read again it gives all values once more; nothing else is on stdout, and there is no segment."""
    Path("publish.toml").write_text(CONFIGURATIONS[kind])
    given = {"VMCLOCK_ASYNC_SOURCES": "device,kernel"} if kind == "auto" else {}
    status, text, said = publish("--config", "publish.toml", "--check", **given)
    assert status == 0, said
    Path("again.toml").write_text(text)
    shown, again = (
        json.loads(publish("--config", file, "--check", "--json")[1]) for file in ("publish.toml", "again.toml")
    )
    del shown["origins"], again["origins"]
    assert again == shown
    assert publish("--config", "again.toml", "--check")[0] == 0
    assert not list(Draft7Validator(configuration_schema()).iter_errors(tomllib.loads(text)))
    assert sorted(os.listdir()) == ["again.toml", "publish.toml"]


def test_each_value_says_where_it_is_from(publish: Publish) -> None:
    """In the TOML as a comment, in JSON under its key; defaults have none."""
    Path("publish.toml").write_text('[metrics]\naddress = ":9123"\n')
    given = ("kernel", "--config", "publish.toml", "--set", "kernel.poll_interval=2", "--check")
    variables = {"VMCLOCK_ASYNC_LOGS__LEVEL": "error", "VMCLOCK_ASYNC_SEGMENT": "none/shm0"}
    status, text, _ = publish(*given, **variables)
    assert status == 0
    for line in (
        'sources = ["kernel"] # from SOURCE',
        'segment = "none/shm0" # from VMCLOCK_ASYNC_SEGMENT',
        'ready = "segment"',
        'address = "127.0.0.1:9123" # from publish.toml',
        'level = "error" # from VMCLOCK_ASYNC_LOGS__LEVEL',
        "poll_interval = 2.0 # from --set kernel.poll_interval",
        "# assumed_error is not set",
    ):
        assert line in text.splitlines()
    assert json.loads(publish(*given, "--json")[1])["origins"] == {
        "publisher.sources": "SOURCE",
        "publisher.segment": "VMCLOCK_ASYNC_SEGMENT",
        "metrics.address": "publish.toml",
        "logs.level": "VMCLOCK_ASYNC_LOGS__LEVEL",
        "sources.kernel.poll_interval": "--set kernel.poll_interval",
    }


def test_auto_is_printed_with_what_it_finds(publish: Publish) -> None:
    """An operator sees what was asked for, and beside it what that is on this machine."""
    given = ("--check", "--set", "device.path=none")
    status, text, said = publish(*given, VMCLOCK_ASYNC_SOURCES="device,told,replay")
    assert (status, "no source to pick from" in said) == (1, True)
    status, text, said = publish("replay", "auto", *given, "--set", "replay.path=x")
    assert status == 0, said
    assert "# auto finds told on this machine now" in text
    assert "# auto looks for device again and again" in text
    assert 'sources = ["replay", "auto"] # from SOURCE' in text
    assert "restores = false # from what auto picks" in text


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("--set", "metrics.adress=:1"), "--set metrics.adress"),
        (("--set", "kernel.poll_interval=0"), "--set kernel.poll_interval"),
        (("--set", "sources.kernl.x=1"), "--set kernl"),
    ],
)
def test_error_is_one_line_with_its_place(publish: Publish, arguments: tuple[str, ...], place: str) -> None:
    """Wrong usage, status 2; in JSON the place is a value of its own, and the remedy another."""
    status, out, said = publish("kernel", "--check", *arguments)
    assert (status, out, len(said.splitlines())) == (2, "", 1)
    assert said.startswith(f"vmclock-async: {place}: ")
    failed = json.loads(publish("kernel", "--check", "--json", *arguments)[1])
    assert (failed["error"], failed["place"], bool(failed["remedy"])) == ("ConfigurationError", place, True)


def test_file_that_is_no_segment_is_found_by_the_check(publish: Publish) -> None:
    """What publishing would refuse, the check refuses too."""
    Path("other").write_text("a letter")
    status, _, said = publish("kernel", "--check", "--segment", "other")
    assert (status, "is some other file" in said) == (1, True)


def test_readers_that_would_look_elsewhere_are_a_warning(publish: Publish) -> None:
    """$VMCLOCK_ASYNC_SEGMENT is weaker than the file, and readers know the variable alone."""
    Path("publish.toml").write_text('[publisher]\nsegment = "none/here"\n')
    given = ("kernel", "--config", "publish.toml", "--check")
    assert "look for" not in publish(*given)[2]
    _, text, said = publish(*given, VMCLOCK_ASYNC_SEGMENT="none/there")
    assert 'segment = "none/here"' in text
    assert "is none/here, and programs that have this environment look for none/there" in said
    assert "look for" not in publish(*given, "--segment", "none/elsewhere")[2]


def test_editors_get_a_schema_of_all_that_is_installed(publish: Publish) -> None:
    """It is a schema, takes the example, knows every option, and refuses keys and values that are not there."""
    status, text, _ = publish("--schema")
    assert status == 0
    schema: dict[str, Any] = json.loads(text)
    assert schema == configuration_schema()
    Draft7Validator.check_schema(schema)
    check = Draft7Validator(schema)
    assert not list(check.iter_errors(tomllib.loads(EXAMPLE.read_text())))
    for text in (
        "[metrics]\nadress = ':1'",
        "[sources.kernl]",
        "[sources.kernel]\nx = 1",
        "[logs]\nlevel = 'loud'",
    ):
        assert list(check.iter_errors(tomllib.loads(text))), text
    tables = schema["properties"]["sources"]["properties"]
    assert tables.keys() == installed_sources().keys()
    path = tables["replay"]["properties"]["path"]
    assert path["description"] == "the recording, JSON Lines, plain or gzip"
    assert not list(check.iter_errors({"sources": {"replay": {}}}))  # its path may be from --set


def test_example_names_its_schema_and_the_manual_names_it() -> None:
    """Editors look for that comment on the first line; operators look in the manual."""
    assert EXAMPLE.read_text().startswith("#:schema ./")
    assert str(EXAMPLE.relative_to(ROOT)) in (ROOT / "docs/how-to/configuration.md").read_text(encoding="utf-8")


def test_list_of_tables_is_printed_and_a_secret_is_not(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stranger's source, with an option in them that is not set."""
    (tmp_path / "listing.py").write_text(
        "from pydantic import BaseModel, SecretStr\n"
        "class Server(BaseModel):\n    host: str\n    key: str | None = None\n"
        "class Settings(BaseModel):\n    servers: list[Server] = []\n    password: SecretStr | None = None\n"
        "class Source:\n    settings_type = Settings\n"
        "    def __init__(self, settings): pass\n    async def run(self, emit): pass\n"
    )
    metadata = tmp_path / "listing-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: listing\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nlisting = listing:Source\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("publish.toml").write_text(
        '[publisher]\nsources = ["listing"]\n[[sources.listing.servers]]\nhost = "a"\n'
    )
    secret = {"VMCLOCK_ASYNC_SOURCES__LISTING__PASSWORD": "swordfish"}
    status, text, said = publish("--config", "publish.toml", "--check", **secret)
    assert status == 0, said
    assert tomllib.loads(text)["sources"]["listing"] == {"servers": [{"host": "a"}]}
    assert "# from publish.toml" in text
    assert "# password is set, and not shown" in text
    assert "swordfish" not in text


@pytest.mark.parametrize("text", ["", "/", "a\0b"], ids=["empty", "no name", "a null character"])
def test_segment_that_is_no_path_of_a_file_is_refused(publish: Publish, text: str) -> None:
    """In one line, before anything is opened."""
    Path("publish.toml").write_text(f"[publisher]\nsegment = {json.dumps(text)}\n")
    status, _, said = publish("--config", "publish.toml", "--check")
    assert status == 2
    assert (
        said == "vmclock-async: publish.toml: publisher.segment: this can be no path of a file; change it there\n"
    )


def test_what_is_wrong_with_a_configuration_has_the_form_of_the_log(publish: Publish) -> None:
    """If the command says which; the place is a field of its own."""
    Path("publish.toml").write_text("[metrics]\nadress = 1\n")
    status, _, said = publish("--config", "publish.toml", "--check", "--log-format", "json")
    assert status == 2
    assert json.loads(said)["place"] == "publish.toml: metrics.adress"
