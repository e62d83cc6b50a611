"""What the command line says where it fails: an object for programs, a line for people, whatever it was given."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.commands import command, environment, failure, run_command
from kit.programs import path_of
from kit.told_world import World
from vmclock_async import SegmentWriter, VMClockBody


def void(path: Path) -> None:
    with SegmentWriter(path) as writer:
        writer.write(VMClockBody())


def halfway(path: Path) -> None:
    """As a writer that died in mid-commit leaves it."""
    void(path)
    page = bytearray(path.read_bytes())
    page[12] |= 1
    path.write_bytes(page)


SEGMENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "SegmentNotInitializedError"),
    "empty": (lambda path: path.touch(), "SegmentNotInitializedError"),
    "another file": (lambda path: path.write_bytes(b"x" * 300), "SegmentMalformedError"),
    "a directory": (lambda path: path.mkdir(), "SegmentMalformedError"),
    "a loop of links": (lambda path: path.symlink_to(path), "SegmentError"),
    "halfway": (halfway, "SegmentUnstableError"),
}


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("reading", ["now", "show"])
def test_json_of_a_segment_that_cannot_be_read(segment_path: Path, reading: str, kind: str) -> None:
    """One object says so, with the error's class, what was seen, the remedy and the path."""
    make, error = SEGMENTS[kind]
    make(segment_path)
    said = failure(run_command(segment_path.parent, reading, "--json", segment_path))
    assert (said["error"], said["path"]) == (error, str(segment_path))
    assert said["remedy"] not in said["reason"]


def test_json_of_a_time_without_a_bound(segment_path: Path) -> None:
    """``now`` says in its object that there is none; jq's comparison of the error with a limit is false."""
    void(segment_path)
    said = failure(run_command(segment_path.parent, "now", "--json", segment_path))
    assert (said["error"], said["path"]) == ("ClockNotSynchronizedError", str(segment_path))
    assert said["reason"] == "clock_status is UNKNOWN"
    assert said["remedy"].startswith("wait until it is SYNCHRONIZED")


def test_json_of_a_bounded_time_says_that_it_is_bounded(world: World) -> None:
    """The same key tells success from failure; age_ns says how old the reference is."""
    world.tell(age_s=3)
    told = run_command(world.path.parent, "now", "--json", world.path)
    said = json.loads(told.stdout)
    assert said["bounded"] is True
    assert said["age_ns"] >= 3 * 10**9 - 1000
    assert "reference" in run_command(world.path.parent, "now", world.path).stdout


BAD_USAGE = {
    "an option": ("now", "--json", "--jsn"),
    "no option's value": ("now", "--json", "--max-age"),
    "a command": ("noww", "--json"),
    "too many arguments": ("show", "--json", "a", "b"),
    "a setting": ("publish", "replay", "--json", "--set", "nonsense"),
    "a configuration that is missing": ("publish", "replay", "--json", "--config", "/nowhere/x.toml"),
    "a source": ("publish", "nosuch", "--json"),
    "a source's option": ("publish", "replay", "--json", "--set", "replay.sped=1"),
    "an argument of demo's": ("demo", "--json", "x"),
    "an argument of sources'": ("sources", "--json", "x"),
    "a path of watch's": ("watch", "--json", "a", "b"),
}


@pytest.mark.parametrize("kind", BAD_USAGE)
def test_json_of_wrong_usage(tmp_path: Path, kind: str) -> None:
    """It is an object too, with status 2; on stderr it is one line, with the command whose help helps."""
    result = run_command(tmp_path, *BAD_USAGE[kind])
    failure(result, status=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("vmclock-async: ")


def test_json_of_a_publisher_that_cannot_work(tmp_path: Path, segment_path: Path) -> None:
    """``publish`` and ``watch``: an object where they end with an error, and it names the source or the path."""
    recording = tmp_path / "bad.jsonl"
    recording.write_text("hello\n")
    sets = ("--set", f"replay.path={recording}")
    said = failure(run_command(tmp_path, "publish", "replay", "--json", "--segment", segment_path, *sets))
    assert (said["error"], said["source"]) == ("SourceError", "replay")
    segment_path.write_bytes(b"x" * 300)
    said = failure(run_command(tmp_path, "watch", "--json", segment_path))
    assert (said["error"], said["path"]) == ("SegmentMalformedError", str(segment_path))
    said = failure(run_command(tmp_path, "publish", "replay", "--json", "--segment", segment_path, *sets))
    assert (said["error"], said["path"]) == ("SegmentMalformedError", str(segment_path))


def test_json_of_a_source_that_two_offer(tmp_path: Path) -> None:
    """``publish`` gives an object that names the source, and what to do with the two distributions."""
    metadata = tmp_path / "rival-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nreplay = rival:Source\n")
    said = failure(run_command(tmp_path, "publish", "replay", "--json", variables={"PYTHONPATH": str(tmp_path)}))
    assert (said["error"], said["source"]) == ("SourceError", "replay")
    assert said["remedy"].startswith("uninstall one of ")


def test_json_of_what_the_system_refuses(tmp_path: Path) -> None:
    """An error of the system that nobody expected is an object as well: here the working directory is gone."""
    words = shlex.join(command("publish", "kernel", "--json", "--segment", "shm0"))
    result = subprocess.run(
        ["sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && {words}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment(tmp_path),
        check=False,
    )
    assert failure(result)["error"] in ("FileNotFoundError", "SegmentError")


LIMITS = {
    "the error": (("--max-error", "1us"), "ClockUnboundedError", ("--max-error",)),
    "the age": (("--max-age", "2s"), "ClockStaleError", ("--max-age",)),
    "both": (("--max-error", "500ns", "--max-age", "1500ms"), "ClockStaleError", ("--max-error", "--max-age")),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_reading_that_exceeds_a_limit_fails(world: World, kind: str) -> None:
    """``now`` ends with 1 and names the limit that was exceeded, or both; its object has the figures."""
    options, error, named = LIMITS[kind]
    world.tell(age_s=10)
    said = json.loads((result := run_command(world.path.parent, "now", "--json", world.path, *options)).stdout)
    assert (result.returncode, said["bounded"], said["error"]) == (1, False, error)
    assert all(name in said["reason"] and name in result.stderr for name in named)
    stale = error == "ClockStaleError"  # whoever looks at error_ns alone must not take an old time for good
    assert said["error_ns"] == 2**64 - 1 if stale else said["error_ns"] > 1000
    assert said["age_ns"] > 9 * 10**9
    prose = run_command(world.path.parent, "now", world.path, *options)
    assert (prose.returncode, prose.stdout) == (1, "")


def test_reading_within_its_limits_is_given(world: World) -> None:
    """Limits that hold change nothing; an age beyond the 1000 s of a clock may be asked for."""
    world.tell(age_s=10)
    for options in (
        ("--max-error", "1.5s", "--max-age", "1h"),
        ("--max-age", "60 min"),
        ("--max-error", "900 ms"),
    ):
        assert run_command(world.path.parent, "now", world.path, *options).returncode == 0
    world.tell(age_s=2000)
    assert run_command(world.path.parent, "now", world.path).returncode == 1
    assert run_command(world.path.parent, "now", world.path, "--max-age", "1h").returncode == 0


def test_publisher_that_was_killed_is_found_by_the_age(tmp_path: Path, segment_path: Path) -> None:
    """A few seconds after SIGKILL ``now`` still gives a time, and with --max-age it fails."""
    arguments = [command()[0], path_of("tell_for_ever"), str(segment_path)]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=here) as publisher:
        try:
            assert publisher.stdout is not None
            assert publisher.stdout.readline() == "there\n"
        finally:
            publisher.send_signal(signal.SIGKILL)
            publisher.wait()
    limit = ("--max-age", "100ms")
    while run_command(tmp_path, "now", segment_path, *limit).returncode == 0:
        pass  # the age grows
    said = failure_of_age(run_command(tmp_path, "now", "--json", segment_path, *limit))
    assert said > 10**8
    assert run_command(tmp_path, "now", segment_path).returncode == 0


def failure_of_age(result: subprocess.CompletedProcess[str]) -> int:
    """age_ns of a reading that was refused for its age."""
    said = json.loads(result.stdout)
    assert (result.returncode, said["error"]) == (1, "ClockStaleError")
    return int(said["age_ns"])


@pytest.mark.parametrize(
    "text",
    ["1", "ms", "1x", "-1s", "0s", "nan s", "1e3s", "", "9" * 5000 + "s", "0.1ns", "\N{ARABIC-INDIC DIGIT ONE}s"],
)
def test_duration_that_is_none_is_wrong_usage(tmp_path: Path, text: str) -> None:
    """It is refused with the forms there are."""
    result = run_command(tmp_path, "now", "--json", f"--max-error={text}")
    assert "is no duration" in failure(result, status=2)["reason"]


ODD: dict[str, tuple[str, dict[str, str]]] = {
    "stdout closed": (">&-", {}),
    "stderr closed": ("2>&-", {}),
    "all closed": ("<&- >&- 2>&-", {}),
    "stdout full": (">/dev/full", {}),
    "stderr full": ("2>/dev/full", {}),
    "both full": (">/dev/full 2>/dev/full", {}),
    "ASCII alone": (
        "",
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    ),
    "no home": ("", {"HOME": "", "XDG_RUNTIME_DIR": "", "TERM": "", "PATH": ""}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_surroundings_give_no_traceback(world: World, kind: str) -> None:
    """Streams that are closed or full, a locale of ASCII alone, no HOME: no traceback, and a proper status.

    A result that could not be printed is a failure.
    """
    redirection, variables = ODD[kind]
    unusual = world.path.with_name("a\N{SNOWMAN}\udc80")
    unusual.hardlink_to(world.path)
    bad = world.path.with_name("bad\N{SNOWMAN}\udc80")
    bad.write_bytes(b"x" * 300)
    lost = redirection.startswith(">") or "<" in redirection
    runs = {
        ("now", "--json", str(unusual)): int(lost),
        ("show", str(unusual)): int(lost),
        ("now", str(bad)): 1,
        ("watch", "--json", str(bad)): 1,
        ("publish", "--segment", str(bad), "replay"): 2,
    }
    commands, told, complaints = (world.path.with_name(name) for name in ("commands", "told", "complaints"))
    commands.write_text(json.dumps(list(runs)))
    new, *_ = runs  # the first has an interpreter of its own, the others one for all
    for words in (command(*new), [command()[0], path_of("commands_in_turn"), commands, told, complaints]):
        with complaints.open("ab") as stderr:
            done = subprocess.run(
                ["/bin/sh", "-c", f"{shlex.join(map(str, words))} {redirection}"],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=60,
                env=environment(world.path.parent, variables),
                check=False,
            )
        written = complaints.read_bytes()
        assert done.returncode == (runs[new] if words[1] == "-m" else 0), (words, written)
        assert b"Traceback" not in written, words
        assert b"Exception ignored" not in written, words
        assert words[1] != "-m" or not written or redirection or runs[new], written
    results = json.loads(told.read_text())
    assert [status for status, _ in results] == list(runs.values()), written
    if not redirection:
        assert [size > 0 for _, size in results] == [status > 0 for status in runs.values()], written
        assert written.count(b"\n") == sum(status > 0 for status in runs.values()), written


def test_segment_takes_no_number_of_a_standard_stream(world: World) -> None:
    """With stdout and stderr closed, what the system and children write there is not written into the segment."""
    told = world.path.with_name("told")
    words = shlex.join([command()[0], path_of("now_without_streams"), str(world.path), str(told)])
    subprocess.run(["sh", "-c", f"{words} <&- >&- 2>&-"], timeout=60, check=True)
    assert told.read_text() == " ".join([os.devnull] * 3)
