"""The thread that wakes readers, in place of the writer: that nothing is lost, left behind or kept quiet."""

import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from vmclock_async import SegmentReader

PLAYED = """
import ctypes, errno, os, sys, threading, time
from pathlib import Path
from vmclock_async import SegmentError, SegmentWriter, VMClockBody

stand_in = ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0])
def played(name):
    return ctypes.c_int.in_dll(stand_in, name)

def threads():
    return {int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}

def eventually(condition):
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.001)

writer = SegmentWriter(sys.argv[1])
body = VMClockBody()
"""

Play = Callable[[str], object]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is futimens(2) to a process, made by the machine's C compiler."""
    library = tmp_path_factory.mktemp("futimens") / "futimens.so"
    source = Path(__file__).parent / "kit/futimens.c"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source], check=True)
    return library


@pytest.fixture
def play(stand_in: Path, segment_path: Path, run_script: Callable[..., str]) -> Play:
    """Run a script, after what all of them begin with, in a process that has the stand-in."""
    preloaded = [str(stand_in), *filter(None, [os.environ.get("LD_PRELOAD")])]
    environment = {"LD_PRELOAD": ":".join(preloaded)}
    return lambda script: run_script(PLAYED + textwrap.dedent(script), segment_path, environment=environment)


def test_the_first_waking_is_the_writers_and_the_others_a_threads(play: Play) -> None:
    """So the first commit of a boot has its mtime at once, and a single commit needs no thread."""
    play("""
        writer.write(body)
        assert played("calls").value == 1
        assert played("last_thread").value == threading.get_native_id()
        assert "vmclock-waker" not in threads().values()
        writer.write(body)
        eventually(lambda: played("calls").value == 2)
        assert threads()[played("last_thread").value] == "vmclock-waker"
    """)


def test_a_waking_that_takes_long_is_not_the_writers(play: Play) -> None:
    """Commits go on meanwhile, and the wakings that fall due are one: after it, not with it."""
    play("""
        writer.write(body)
        played("held_us").value = 300_000
        writer.write(body)
        eventually(lambda: played("calls").value == 2)
        for _ in range(1000):
            writer.write(body)
        assert played("calls").value == 2, "1000 commits took more than 300 ms, or waited"
        assert writer.seq_count == 2004
        played("held_us").value = 0
        eventually(lambda: played("calls").value == 3)
    """)


def test_closing_ends_the_thread_after_the_last_waking(play: Play) -> None:
    """Who waits hears of the last commit, and nothing is left."""
    play("""
        writer.write(body)
        played("held_us").value = 100_000
        writer.write(body)
        os.utime(sys.argv[1], (1, 1))
        writer.write(body)
        writer.close()
        assert "vmclock-waker" not in threads().values()
        assert os.stat(sys.argv[1]).st_mtime > 1
        calls = played("calls").value
        with SegmentWriter(sys.argv[1]) as following:
            following.write(body)
        assert played("calls").value == calls + 1
    """)


def test_a_waking_that_falls_due_while_another_ends_is_not_lost(play: Play) -> None:
    """The thread has done its call, and not come back from it: what is due by now is done before it goes."""
    play("""
        writer.write(body)
        played("held_after_us").value = 100_000
        writer.write(body)
        eventually(lambda: played("calls").value == 2)
        time.sleep(0.03)
        os.utime(sys.argv[1], (1, 1))
        writer.write(body)
        writer.close()
        assert os.stat(sys.argv[1]).st_mtime > 1
    """)


def test_a_process_that_ends_without_closing_ends(play: Play) -> None:
    """The thread holds nothing that the interpreter waits for."""
    play("""
        writer.write(body)
        writer.write(body)
        played("held_us").value = 100_000
        writer.write(body)
    """)


def test_what_the_thread_could_not_do_the_next_commit_tells(play: Play) -> None:
    """Each failure once, with its errno; the commits are there all the same."""
    play("""
        writer.write(body)
        played("refused_errno").value = errno.EROFS
        writer.write(body)

        def is_told():
            try:
                writer.write(body)
            except SegmentError as exc:
                told = f"committed {writer.seq_count}, but cannot wake readers (Read-only file system)"
                assert told in str(exc), exc
                return True

        eventually(is_told)
        assert played("refused_errno").value == 0
        last = writer.seq_count
        assert [writer.write(body) for _ in range(100)] == list(range(last + 2, last + 202, 2))
    """)


def test_signals_are_not_the_threads(play: Play) -> None:
    """It blocks them all: a handler runs where the program expects it, and no call there is cut short in its place."""
    play("""
        writer.write(body)
        writer.write(body)
        waker = next(thread for thread, name in threads().items() if name == "vmclock-waker")
        status = Path(f"/proc/self/task/{waker}/status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert all(blocked >> number - 1 & 1 for number in (1, 2, 14, 15)), hex(blocked)
    """)


FILTER = """
import struct
KILL, EPERM = 0x80000000, 0x00050001  # SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | 1; numbers are of asm/unistd.h
ARM = os.uname().machine == "aarch64"
CLONE, CLONE3, SCHED_SETSCHEDULER = (220, 435, 119) if ARM else (56, 435, 144)

def forbid(action, *calls):
    load, allow = struct.pack("HBBI", 0x20, 0, 0, 0), struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    tests = b"".join(
        struct.pack("HBBI", 0x15, 0, 1, call) + struct.pack("HBBI", 0x06, 0, 0, action) for call in calls
    )
    program = load + tests + allow
    kept = ctypes.create_string_buffer(program)
    filter = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(filter), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""


def test_a_filter_that_kills_who_asks_for_a_schedule_is_no_end(play: Play) -> None:
    """As systemd's SystemCallFilter=~@resources: the thread is there, and asks for nothing."""
    play(
        FILTER
        + """
forbid(KILL, SCHED_SETSCHEDULER)
writer.write(body)
writer.write(body)
eventually(lambda: played("calls").value == 2)
assert "vmclock-waker" in threads().values()
writer.close()
"""
    )


def test_without_a_thread_the_writer_wakes(play: Play) -> None:
    """Where none may be started, each waking is the writer's own, as the first is."""
    play(
        FILTER
        + """
forbid(EPERM, CLONE, CLONE3)
for number in range(1, 4):
    writer.write(body)
    assert played("calls").value == number
assert len(threads()) == 1
writer.close()
"""
    )


def test_a_fork_leaves_the_thread_to_the_parent(play: Play) -> None:
    """The child has neither page nor thread, closes and ends in good order, and can open a segment of its own."""
    play("""
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
        writer.write(body)
        writer.write(body)
        played("held_us").value = 20_000
        writer.write(body)
        child = os.fork()
        if not child:
            writer.close()
            with SegmentWriter(sys.argv[1] + "-of-the-child") as own:
                for _ in range(3):
                    own.write(body)
            del writer
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        calls = played("calls").value
        writer.write(body)
        eventually(lambda: played("calls").value > calls)
        writer.close()
    """)


@pytest.mark.parametrize("refusal", ["EACCES", "EPERM"])
def test_a_writer_that_may_not_set_times_wakes_all_the_same(play: Play, refusal: str) -> None:
    """A reader hears of each commit by inotify, the file's mtime says when that was, and no byte is another."""
    play(f"""
        import anyio
        from vmclock_async import SegmentReader

        writer.write(body)
        played("refused_always_errno").value = errno.{refusal}

        async def follow(reader):
            for number in range(1, 6):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: reader.wait_changed(writer.seq_count, poll_interval=3600))
                    while reader.statistics().waits < number:
                        await anyio.sleep(0.001)
                    os.utime(sys.argv[1], (1, 1))
                    writer.write(VMClockBody(counter_value=number))
                    eventually(lambda: os.stat(sys.argv[1]).st_mtime > 1)
                assert Path(sys.argv[1]).read_bytes()[:8] == b"VCLK" + bytes([104, 0, 0, 0])
                assert reader.snapshot().body.counter_value == number

        with SegmentReader(sys.argv[1]) as reader:
            anyio.run(follow, reader)
        assert played("calls").value >= 6
    """)


DROPPED_SCRIPT = """
writer = SegmentWriter(sys.argv[1])
become_nobody()
for number in range(1, 6):
    writer.write(VMClockBody(counter_value=number))
writer.close()
"""


def test_a_writer_may_give_up_its_privileges_after_opening(
    run_script: Callable[..., str], segment_path: Path
) -> None:
    """Commits go on as a user who could not open the segment; to who has no privileges nothing changes."""
    run_script(DROPPED_SCRIPT, segment_path, unprivileged=True)
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.counter_value == 5
