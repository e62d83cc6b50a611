"""The command line, as real processes: what show, now, sources and demo print, and one line for bad input."""

import importlib
import inspect
import json
import logging
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kit import signals
from kit.commands import assert_one_line, command, run_command, run_new_interpreter
from kit.earlier_boot import age_by_a_boot
from kit.segment_files import BAD_SEGMENT
from kit.terminals import run_on_terminal
from vmclock_async import ClockStatus, Flags, SegmentWriter, VMClockBody, timebase
from vmclock_async._cli import main
from vmclock_async._cli.commands import COMMANDS
from vmclock_async.testing import PlayedSegment

Run = Callable[..., subprocess.CompletedProcess[str]]


def demo_on_pipe() -> tuple[int, str]:
    """Exit status and output of ``demo``."""
    ended = subprocess.run(
        command("demo"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line to its end, in an environment that names no segment."""

    def run(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *args, variables=variables)

    return run


@pytest.mark.parametrize("kind", BAD_SEGMENT)
@pytest.mark.parametrize("reading", ["show", "now"])
def test_bad_segment_is_told_in_one_line(run: Run, segment_path: Path, reading: str, kind: str) -> None:
    """``show`` and ``now`` name the path and what is wrong with it."""
    page, complaint = BAD_SEGMENT[kind]
    segment_path.write_bytes(page)
    assert_one_line(run(reading, segment_path), str(segment_path), complaint)


def test_show_prints_the_page(run: Run, vectors: Path) -> None:
    """``show --json`` has the ABI's names and numbers; without it, people's words for them too."""
    path = vectors / "clockbound-writer" / "updater-02-warm-restart-marker-2-synchronized-tai-37.bin"
    shown = json.loads(run("show", "--json", path).stdout)
    assert shown["seq_count"] == 4
    assert shown["size"] == 104
    assert shown["body"]["clock_status"] == 2
    assert VMClockBody.model_validate_json(json.dumps(shown["body"])) == VMClockBody(
        disruption_marker=2, clock_status=2, tai_offset_sec=37
    )
    lines = run("show", path).stdout.splitlines()
    assert any(line.split() == ["clock_status", "2", "SYNCHRONIZED"] for line in lines)
    assert any("not valid" in line for line in lines if line.startswith("tai_offset_sec"))


@pytest.mark.parametrize("folder", ["clockbound-writer", "linux-device"])
def test_show_prints_what_other_programs_wrote(run: Run, vectors: Path, folder: str) -> None:
    """Pages of ClockBound's writer and of a real device are decoded to the bytes they came from."""
    for path in sorted((vectors / folder).glob("*.bin")):
        page = path.read_bytes()
        shown = json.loads(run("show", "--json", path).stdout)
        assert shown["size"] == len(page)
        assert VMClockBody.model_validate_json(json.dumps(shown["body"])).pack() == page[16:104]


def test_show_names_unknown_values(run: Run, segment_path: Path) -> None:
    """Bits and values without a name are shown as numbers."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(clock_status=77, flags=Flags(1 << 33 | 2)), counter_id=0xFF)
    shown = run("show", segment_path).stdout
    assert "INVALID not this machine's counter" in shown
    assert "DISRUPTION_SOON 0x200000000 (unknown)" in shown
    assert re.search(r"clock_status +77 +77", shown)


def timed_body() -> VMClockBody:
    """A body that bounds the time of now to a millisecond, on this machine's counter."""
    pairing = timebase.pair(0)
    period = timebase.fixed_point_period(10**9, 2 * 10**9)
    seconds, ns = divmod(pairing.clock_ns, 10**9)
    return VMClockBody(
        flags=Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=pairing.counter_ticks,
        counter_period_frac_sec=period.frac_sec,
        counter_period_shift=period.shift,
        counter_period_maxerror_rate_frac_sec=period.frac_sec // 2,
        time_sec=seconds,
        time_frac_sec=(ns << 64) // 10**9,
        time_maxerror_nanosec=10**6,
    )


def test_now_prints_a_bounded_reading(run: Run, segment_path: Path) -> None:
    """The interval contains the time at which it was asked for."""
    with SegmentWriter(segment_path) as writer:
        writer.write(timed_body(), counter_id=timebase.COUNTER_ID)
    shown = json.loads(run("now", "--json", segment_path).stdout)
    assert shown["earliest_ns"] <= shown["midpoint_ns"] <= shown["latest_ns"]
    assert shown["status"] == "SYNCHRONIZED"
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z \+/- [\d.]+ \w+  SYNCHRONIZED", run("now", segment_path).stdout)


def test_now_says_why_there_is_no_bound(run: Run, segment_path: Path) -> None:
    """Not synchronized, and of an earlier boot: each has its own line."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(clock_status=ClockStatus.INITIALIZING))
    assert_one_line(run("now", segment_path), "clock_status is INITIALIZING")
    age_by_a_boot(segment_path)
    assert_one_line(run("now", segment_path), "before this machine booted")


def test_reader_finds_the_segment_by_variable(run: Run, segment_path: Path) -> None:
    """PATH defaults to $VMCLOCK_ASYNC_SEGMENT, for publisher and reader alike."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody())
    shown = run("show", "--json", VMCLOCK_ASYNC_SEGMENT=str(segment_path))
    assert json.loads(shown.stdout)["path"] == str(segment_path)


def test_sources_lists_what_is_installed_without_the_broken_breaking_it(run: Run, tmp_path: Path) -> None:
    """A plugin that cannot be imported is listed as such; chosen, it ends with one line; others are untouched."""
    metadata = tmp_path / "broken_source-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-source\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nbroken = no_such_module:Source\n")
    listed = run("sources", PYTHONPATH=str(tmp_path))
    assert listed.returncode == 0
    assert "broken  (broken-source 1.0)" in listed.stdout
    assert "broken: no_such_module:Source of broken-source 1.0 cannot be imported" in listed.stdout
    assert "replay.speed" in listed.stdout
    assert json.loads(run("sources", "--json").stdout)["replay"]["distribution"] == "vmclock-async"
    chosen = run("publish", "broken", PYTHONPATH=str(tmp_path))
    assert_one_line(chosen, "broken: no_such_module:Source of broken-source 1.0 cannot be imported")
    narrowed = run("sources", PYTHONPATH=str(tmp_path), VMCLOCK_ASYNC_SOURCES="replay")
    assert "broken" not in narrowed.stdout


def test_two_distributions_of_one_name_are_an_error(run: Run, tmp_path: Path) -> None:
    """Neither wins silently: both are named, listed and chosen; the sources of other names are listed as ever."""
    metadata = tmp_path / "rival-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nreplay = rival:Source\n")
    listed = run("sources", PYTHONPATH=str(tmp_path))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(r"broken: offered by both .*rival.*; uninstall one of the two", listed.stdout)
    assert "kernel.poll_interval" in listed.stdout
    chosen = run("publish", "replay", PYTHONPATH=str(tmp_path))
    assert_one_line(chosen, "replay: offered by both", "rival", "vmclock-async")


def test_importing_the_package_imports_neither_the_command_line_nor_a_plugin() -> None:
    """Who embeds the library pays for anyio and pydantic alone."""
    program = (
        "import sys, vmclock_async\n"
        "heavy = {'typer', 'rich', 'inotify_simple', 'trio', 'vmclock_replay'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_control_characters_are_escaped(run: Run) -> None:
    """A path cannot drive the terminal."""
    result = run("show", "/nowhere/\x1b[31mred\n")
    assert "\x1b" not in result.stderr
    assert "\\x1b[31mred\\n" in result.stderr


def test_now_ends_at_once_with_its_output_and_its_status(segment: PlayedSegment, tmp_path: Path) -> None:
    """Into a pipe and into a file, with a bound and without: nothing is lost."""
    for status in (0, 1):
        segment.change(clock_status=ClockStatus.UNKNOWN if status else ClockStatus.SYNCHRONIZED)
        piped = run_new_interpreter(tmp_path, "now", "--json", segment.path)
        assert piped.returncode == status
        assert json.loads(piped.stdout)["bounded"] is (status == 0)
        filed = tmp_path / "output"
        with filed.open("w") as file:
            ended = subprocess.run([*command("now", "--json", segment.path)], stdout=file, check=False)
        assert (ended.returncode, json.loads(filed.read_text()).keys()) == (
            status,
            json.loads(piped.stdout).keys(),
        )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_demo_that_is_stopped_leaves_nothing_behind(number: int, status: int) -> None:
    """Whatever ends it, the temporary segment goes with it."""
    demo = subprocess.Popen(
        command("demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals.at_default,
    )
    try:
        assert demo.stdout is not None
        assert demo.stderr is not None
        place = re.search(r"into (/\S+)/shm0", demo.stderr.readline())
        assert place is not None
        assert demo.stdout.readline().startswith("seq_count=")
        demo.send_signal(number)
        _, complaints = demo.communicate(timeout=10)
    finally:
        demo.kill()
        demo.communicate()
    assert demo.returncode == status
    assert "Traceback" not in complaints
    assert not Path(place[1]).exists()


@pytest.mark.waits
@pytest.mark.process  # which is not seen through a parameter
@pytest.mark.parametrize("run_demo", [demo_on_pipe, partial(run_on_terminal, "demo")], ids=["pipe", "terminal"])
def test_demo_shows_time_a_migration_and_a_restore(run_demo: Callable[[], tuple[int, str]]) -> None:
    """With no clock source at all: intervals, a migration and a restore go by in about 15 seconds; status 0."""
    year, began = time.gmtime().tm_year, time.monotonic()
    status, shown = run_demo()
    assert status == 0, shown
    assert time.monotonic() - began > 10
    assert "Traceback" not in shown
    assert re.search(rf"{year}-\d\d-\d\dT[\d:.]+Z \+/- [\d.]+ us", shown)
    assert "disrupted: marker 40 -> 41" in shown
    assert re.search(r"restored: generation \d+ -> \d+", shown)
    assert "maintenance announced" in shown


def test_now_with_the_usual_arguments_imports_no_typer(segment: PlayedSegment, tmp_path: Path) -> None:
    """Typer costs a fifth of a health check's processor time; it still understands arguments in other forms."""
    program = (
        "import sys\n"
        "from vmclock_async._cli import main\n"
        "status = main(sys.argv[1:])\n"
        "sys.exit(', '.join(sorted({'click', 'rich', 'typer'} & set(sys.modules))) or status)\n"
    )
    arguments = ["now", "--json", "--max-error", "1h", "--max-age", "1h", str(segment.path)]
    plain = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (plain.returncode, plain.stderr) == (0, "")
    other = run_command(tmp_path, "now", "--json", "--max-error=1h", "--max-age=1h", segment.path)
    assert json.loads(plain.stdout).keys() == json.loads(other.stdout).keys()


@pytest.mark.parametrize(
    "words",
    [
        ("now", "--max-age=soon"),
        ("disrupt", "--timeout", "soon"),
        ("on", "restored", "--timeout", "soon", "--", "true"),
        ("set-clock", "--threshold", "soon"),
        ("wait", "--stable", "soon"),
    ],
)
def test_what_is_no_duration_is_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Each command says the same about it."""
    done = run_command(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'soon' is no duration: a number and a unit (ns, us" in done.stderr
    assert "Value error" not in done.stderr


def test_program_that_runs_a_command_keeps_its_log_as_it_was(tmp_path: Path) -> None:
    """main() shows the log's notes for as long as the command runs; a program that calls it has its own level after."""
    log = logging.getLogger("vmclock_async")
    before = log.level, list(log.handlers)
    assert main(["show", str(tmp_path / "nothing")]) == 1
    assert (log.level, list(log.handlers)) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_and_there_is_json(tmp_path: Path, name: str) -> None:
    """The example is of this command, with options that it has."""
    function = name.replace("-", "_")
    module = importlib.import_module(f"vmclock_async._cli.{function}")
    *_, last = inspect.cleandoc(getattr(module, function).__doc__).split("\n\n")
    program, command, *words = shlex.split(last.rpartition("<(")[2].rstrip(")").split(" | ")[0])
    assert (program, command) == ("vmclock-async", name)
    shown = run_command(tmp_path, name, "--help").stdout
    for option in ("--json", *(word.partition("=")[0] for word in words if word.startswith("-"))):
        assert re.search(rf"^  {option}\b", shown, re.MULTILINE), option
