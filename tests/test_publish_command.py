"""``publish`` where it is started: with a configuration, on a terminal, in the background, and without /proc."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.commands import run_command
from kit.programs import path_of
from kit.terminals import read, run_on_terminal
from kit.waits import eventually, is_committed
from vmclock_async import VMClockBody
from vmclock_async._cli.progress import totals
from vmclock_async.recording import Record, RecordingHeader, RecordingWriter
from vmclock_async.sources import Progress

HEADER = {
    "format": "vmclock-recording",
    "version": 1,
    "counter_id": 1,
    "time_type": 0,
    "segment_size": 112,
    "created": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of 100 bodies, 10 ms apart."""
    path = tmp_path / "good.jsonl"
    with RecordingWriter(path, RecordingHeader.model_validate_json(json.dumps(HEADER))) as writer:
        for number in range(1, 101):
            body = VMClockBody(disruption_marker=number)
            writer.write(Record(t_ns=number * 10**7, counter=None, seq_count=2 * number, body=body))
    return path


@pytest.fixture
def drawn(segment_path: Path) -> Callable[..., str]:
    """What ``publish replay`` draws as a job on a terminal.

    When it has drawn *until*, and made 100 commits, it gets a SIGTERM.
    """

    def drawn(where: str, *sets: str, until: str | None = None) -> str:
        command = [sys.executable, "-m", "vmclock_async", "publish", "replay", "--segment", str(segment_path)]
        command += [word for option in sets for word in ("--set", option)]
        parent, child = pty.openpty()
        shell = subprocess.Popen(
            [sys.executable, path_of("shell"), where, *command],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(child)
        seen = b""
        try:
            while chunk := read(parent):
                seen += chunk
                if until is not None and until.encode() in seen:
                    eventually(lambda: is_committed(segment_path, 100))
                    os.killpg(shell.pid, signal.SIGTERM)
                    until = None
            shell.wait(30)
            return seen.decode(errors="replace")
        finally:
            shell.kill()
            shell.wait()
            os.close(parent)

    return drawn


class Showing:
    """A source that tells its progress, in some way."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self.progress = tell


def test_progress_that_cannot_be_shown_is_left_out() -> None:
    """Whatever progress() of a stranger's source does, the others have their bars."""

    def leave() -> None:
        sys.exit(3)

    told: dict[str, Callable[[], object]] = {
        "good": lambda: Progress(1, 5),
        "endless": lambda: Progress(1, None),
        "failing": lambda: 1 / 0,
        "leaving": leave,
        "odd": lambda: "half",
        "unnumbered": lambda: Progress(1, "five"),  # type: ignore[arg-type]
    }
    assert totals({name: Showing(tell) for name, tell in told.items()}) == {"good": 5}  # type: ignore[misc]


def test_publish_shows_progress_on_a_terminal(recording: Path, segment_path: Path) -> None:
    """Records done, of how many, the rate and the time left."""
    status, drawn = run_on_terminal(
        "publish", "replay", "--segment", segment_path, "--set", f"replay.path={recording}"
    )
    assert status == 0, drawn
    assert "Traceback" not in drawn
    assert re.search(r"\d+/100", drawn), drawn
    assert re.search(r"[\d,]+/s", drawn), drawn
    assert re.search(r"0:00:0\d", drawn), drawn


def test_job_in_front_draws_its_progress(drawn: Callable[..., str], recording: Path) -> None:
    """On the terminal of which it is the foreground job, a source that has an end gets a bar."""
    assert "/100" in drawn("in front", f"replay.path={recording}")


def test_job_in_the_background_leaves_the_terminal_alone(drawn: Callable[..., str], recording: Path) -> None:
    """``publish &`` draws nothing over the next command and hides no cursor; its log still comes."""
    seen = drawn("behind", f"replay.path={recording}")
    assert "publishing replay to " in seen
    assert "100 commits" in seen
    assert "\x1b" not in seen


def test_source_without_an_end_has_no_bar(drawn: Callable[..., str], recording: Path) -> None:
    """Where there is no total there is nothing to draw."""
    seen = drawn("in front", f"replay.path={recording}", "replay.loop=true", until="publishing replay")
    assert "publishing replay to " in seen
    assert "\x1b" not in seen


@pytest.mark.parametrize(
    "text",
    [
        "replay = " + "[" * 5000 + "]" * 5000,
        "a." * 5000 + "a = 1",
        "sources.replay.path." + "a." * 5000 + "a = 1",
        "[replay]\nspeed = " + "1" * 5000,
        "[replay]\npath = 0000-99-99",
        "[replay",
        "\x00",
    ],
)
def test_configuration_that_cannot_be_read_is_wrong_usage(tmp_path: Path, text: str) -> None:
    """Nested too deeply, a number too long, no date, no TOML: the file is named, status 2, no traceback."""
    config = tmp_path / "publish.toml"
    config.write_text(text)
    ended = run_command(tmp_path, "publish", "replay", "--config", config)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"{config}: " in ended.stderr


def test_publish_needs_no_proc(recording: Path, segment_path: Path) -> None:
    """Where nothing tells whether the segment is in memory, there is no warning, and the work is done."""
    sets = ("--set", f"replay.path={recording}", "--set", "replay.speed=0")
    command = [sys.executable, path_of("without_proc"), "publish", "replay", "--segment", str(segment_path), *sets]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "100 commits" in ended.stderr
    assert "tmpfs" not in ended.stderr
