"""The log of a command: one event a line, as text, logfmt or JSON, whatever the event is; quiet while all is well."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vmclock_async._cli import main
from vmclock_async._cli.app import run
from vmclock_async._cli.logs import configure, logging_to_stderr
from vmclock_async._cli.output import complain
from vmclock_async.stamping import TimeFilter
from vmclock_async.testing import ManualClock

ROOT = Path(__file__).parent.parent
LOG = logging.getLogger("vmclock_async.test_logs")
Events = Callable[[], list[dict[str, Any]]]
ODD = (
    "plain",
    "",
    "two\nlines\r\nand a \ttab",
    "quotes \"here\" and 'there'",
    "a=b c=\"d\" {'json': [1]}",
    "back\\slash \\n that is none",
    "bell \a escape \x1b[31m zero \0 delete \x7f next line \x85 separators \u2028\u2029",
    "Zeit: 5 µs, 時刻, \U0001f552",
    "100% {} %s %",
)


def parse_logfmt(line: str) -> dict[str, Any]:
    """The fields of *line*, which has nothing else in it."""
    line = line.removesuffix("\n")
    found = re.findall(r'(?:^| )([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)', line)
    assert " ".join(f"{name}={value}" for name, value in found) == line
    return {name: json.loads(value) if value[0] == '"' else value for name, value in found}


PARSERS: dict[str, Callable[[str], dict[str, Any]]] = {"json": json.loads, "logfmt": parse_logfmt}


@pytest.fixture(params=PARSERS)
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both forms for programs, in a command that runs."""
    with logging_to_stderr():
        configure("info", request.param)
        yield request.param


@pytest.fixture
def events(form: str, capsys: pytest.CaptureFixture[str]) -> Events:
    """Gives the events since the last call."""

    def events() -> list[dict[str, Any]]:
        written = capsys.readouterr().err
        assert written.isascii()
        assert all(char == "\n" or char.isprintable() for char in written)
        return [PARSERS[form](line) for line in written.splitlines()]

    return events


@pytest.mark.parametrize("text", ODD)
def test_each_event_is_one_line_that_parses_back(events: Events, text: str) -> None:
    """Whatever its message is: of a record, of a complaint, and of a further field."""
    began = datetime.now(UTC)
    LOG.warning("%s", text, extra={"source": text, "odd name=": text})
    complain(text, level=logging.WARNING)
    record, complaint = events()
    said = {"level": "warning", "msg": text, "source": text}
    assert said.items() <= record.items()
    assert text in (record.get("odd name="), record.get("odd_name_"))
    assert (record["logger"], complaint["logger"]) == ("vmclock_async.test_logs", "vmclock_async")
    assert complaint["msg"] == text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["time"])
    assert abs(datetime.fromisoformat(record["time"]) - began) < timedelta(minutes=5)


def test_half_a_surrogate_is_no_failure(events: Events) -> None:
    """Of a path that is no UTF-8. A complaint shows it, because pytest could not send the text of such a record."""
    complain("no \udc80 file", level=logging.WARNING)
    assert events()[0]["msg"] == "no \udc80 file"


def test_traceback_is_within_its_line(events: Events) -> None:
    """Of a record's exception, with all its lines in one field; and the stack, where a program asks for it."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        LOG.exception("failed", stack_info=True)
    (event,) = events()
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert event["exception"].endswith("ValueError: first\nsecond")
    assert "test_traceback_is_within_its_line" in event["stack"]


class Unshowable:
    """An object of a stranger's."""

    def __str__(self) -> str:
        raise RuntimeError


def test_further_fields_of_a_record_are_simple_values(events: Events, form: str) -> None:
    """Numbers stay numbers in JSON, if JSON has such; other objects are text; none hides a field of the event's own."""
    extra = {"n": 2**60, "x": 0.5, "no": float("nan"), "on": True, "of": None, "path": Path("/a b"), "time": 1}
    LOG.info("fields", extra={**extra, "bad": Unshowable()})
    (event,) = events()
    expected = {"n": 2**60, "x": 0.5, "no": "nan", "on": True, "of": None, "path": "/a b", "time_": 1}
    if form == "logfmt":
        expected = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in expected.items()
        }
    assert expected.items() <= event.items()
    assert event["bad"] == "<Unshowable that cannot be shown>"


class Mute:
    """An object that neither shows nor describes itself."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def test_fields_that_cannot_be_shown_end_nothing(events: Events) -> None:
    """The line comes without them; an exception keeps its name."""
    LOG.info("fields", extra={"n": 10**5000})
    (event,) = events()
    assert (event["msg"], event["fields"]) == ("fields", "cannot be shown (ValueError)")
    try:
        raise ValueError("first")
    except ValueError:
        LOG.exception("failed", extra={"exception": "mine"})
    (event,) = events()
    assert event["exception"].endswith("ValueError: first")
    assert event["exception_"] == "mine"


def test_object_in_place_of_a_message_ends_nothing(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that shows nothing of itself."""
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if type(handler).__module__.startswith("vmclock_async")]
    monkeypatch.setattr(root, "handlers", ours)
    LOG.info(Mute())
    assert [event["msg"] for event in events()] == ["a log line of vmclock_async.test_logs that cannot be shown"]


def test_line_whose_arguments_do_not_fit_comes_all_the_same(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source may have never run that line before."""
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if type(handler).__module__.startswith("vmclock_async")]
    monkeypatch.setattr(root, "handlers", ours)  # without pytest's, which fail the test
    LOG.info("%d fields", "many")
    assert [event["msg"] for event in events()] == ["'%d fields', a log line whose arguments do not fit"]


def test_stamps_are_fields(events: Events) -> None:
    """What a filter has added to the record is in the event."""
    with ManualClock(follow_loop=False) as clock:
        record = logging.makeLogRecord({"name": "vmclock_async.x", "levelno": logging.INFO, "msg": "stamped"})
        TimeFilter(clock).filter(record)
        LOG.handle(record)
        (event,) = events()
        assert event["incarnation"] == str(clock.incarnation)
        assert int(event["earliest_ns"]) == clock.now().earliest_ns


def test_other_libraries_lines_are_events_too(events: Events) -> None:
    """What asyncio or a plugin says would be a line without a time or a level."""
    logging.getLogger("acme").warning("something")
    logging.getLogger("acme").info("details")
    assert [(event["logger"], event["msg"]) for event in events()] == [("acme", "something")]


def test_line_is_written_at_once(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its end: what other threads and processes write does not come in between."""
    writes: list[str] = []

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            if text:
                writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stderr())
    complain("one")
    LOG.info("two")
    assert [text[-1] for text in writes] == ["\n", "\n"]
    assert [PARSERS[form](text)["msg"] for text in writes] == ["one", "two"]


def test_bug_is_an_event_and_no_traceback_of_many_lines(
    form: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is that of a failure."""

    def broken() -> int:
        configure("info", form)
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("vmclock_async._cli.app.plain_reading", lambda argv: broken)
    assert run(["now"]) == 1
    (event,) = events()
    assert event["level"] == "critical"
    assert event["exception"].endswith("ZeroDivisionError: oops")


REPLAYED = ("--set", f"replay.path={ROOT}/examples/recordings/time-source-lost.jsonl", "--set", "replay.mode=live")


def published(path: Path, *words: str) -> int:
    """Publish a second of a recorded machine that is well."""
    wanted = ["publish", "replay", "--segment", str(path), *REPLAYED, "--set", "replay.until=1s"]
    return main([*wanted, *words])


def test_well_publisher_writes_what_it_always_wrote(
    segment_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it publishes, what the time is, and how many commits there were; nothing in between."""
    assert published(segment_path) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"vmclock-async: info: publishing replay to {segment_path}"
    assert re.fullmatch(r"vmclock-async: info: the time comes from replay: \+/- [\d.]+ ms, SYNCHRONIZED", lines[1])
    assert re.fullmatch(rf"vmclock-async: \d+ commits? to {segment_path}, seq_count \d+", lines[2])
    assert len(lines) == 3


@pytest.mark.parametrize("form", PARSERS)
def test_publish_writes_the_same_as_events(
    segment_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """Each with its level and its logger; a failure names its class."""
    assert published(segment_path, "--log-format", form) == 0
    events = [PARSERS[form](line) for line in capsys.readouterr().err.splitlines()]
    assert [(event["level"], event["logger"]) for event in events] == [
        ("info", "vmclock_async.publisher"),
        ("info", "vmclock_async.publisher"),
        ("info", "vmclock_async"),
    ]
    assert published(segment_path, "--log-format", form, "--set", "replay.path=nowhere", "--debug") == 1
    traceback, failure = [PARSERS[form](line) for line in capsys.readouterr().err.splitlines()]
    assert "RecordingError: nowhere" in traceback["exception"]
    assert (failure["level"], failure["error"], failure["source"]) == ("error", "SourceError", "replay")


@pytest.mark.parametrize("form", ["text", *PARSERS])
def test_level_holds_for_all_lines(segment_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """From warnings on, a publisher that is well says nothing; a failure is always said."""
    words = ("--log-format", form, "--log-level", "warning")
    assert published(segment_path, *words) == 0
    assert capsys.readouterr().err == ""
    assert published(segment_path, *words, "--set", "replay.path=nowhere") == 1
    assert "nowhere" in capsys.readouterr().err


def test_all_is_as_before_once_the_command_has_ended(
    segment_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a program that runs commands: its loggers, and the complaints of the next command."""
    own, root = logging.getLogger("vmclock_async"), logging.getLogger()
    before = own.level, own.handlers[:], root.level, root.handlers[:]
    published(segment_path, "--log-format", "json", "--log-level", "error")
    assert (own.level, own.handlers, root.level, root.handlers) == before
    capsys.readouterr()
    assert main(["show", str(segment_path.parent / "nothing")]) == 1
    assert capsys.readouterr().err.startswith(f"vmclock-async: {segment_path.parent}/nothing: ")


@pytest.mark.parametrize("words", [("loud", "json"), ("info", "xml")])
def test_unknown_level_or_form_is_refused(words: tuple[str, str]) -> None:
    """By the name that was given; the command line refuses it as wrong usage."""
    with logging_to_stderr(), pytest.raises(ValueError, match=r"loud|xml"):
        configure(*words)
    assert main(["publish", "replay", "--log-level", words[0], "--log-format", words[1]]) == 2
