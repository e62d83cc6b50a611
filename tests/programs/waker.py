"""Wake readers in a process whose futimens(2) is played; the second argument names what happens."""

import ctypes
import errno
import os
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anyio

from vmclock_async import SegmentError, SegmentReader, SegmentWriter, VMClockBody

stand_in = ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0])
path, how = sys.argv[1:]
writer = SegmentWriter(path)
body = VMClockBody()

KILL, EPERM = (
    0x80000000,
    0x00050001,
)  # SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | 1; numbers are of asm/unistd.h
ARM = os.uname().machine == "aarch64"
CLONE, CLONE3, SCHED_SETSCHEDULER = (220, 435, 119) if ARM else (56, 435, 144)


def played(name: str) -> ctypes.c_int:
    """A variable of the stand-in for futimens(2)."""
    return ctypes.c_int.in_dll(stand_in, name)


def names_of_threads() -> dict[int, str]:
    """The threads of this process, by number, and their names."""
    return {int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}


def eventually(condition: Callable[[], object]) -> None:
    """Return once *condition* holds."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.001)


def forbid(action: int, *calls: int) -> None:
    """Let the kernel do *action* where this process makes one of *calls*."""
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


def first() -> None:
    writer.write(body)
    assert played("calls").value == 1
    assert played("last_thread").value == threading.get_native_id()
    assert "vmclock-waker" not in names_of_threads().values()
    writer.write(body)
    eventually(lambda: played("calls").value == 2)
    assert names_of_threads()[played("last_thread").value] == "vmclock-waker"


def takes_long() -> None:
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


def close() -> None:
    writer.write(body)
    played("held_us").value = 100_000
    writer.write(body)
    os.utime(path, (1, 1))
    writer.write(body)
    writer.close()
    assert "vmclock-waker" not in names_of_threads().values()
    assert os.stat(path).st_mtime > 1
    calls = played("calls").value
    with SegmentWriter(path) as following:
        following.write(body)
    assert played("calls").value == calls + 1


def due_meanwhile() -> None:
    writer.write(body)
    played("held_after_us").value = 100_000
    writer.write(body)
    eventually(lambda: played("calls").value == 2)
    time.sleep(0.03)
    os.utime(path, (1, 1))
    writer.write(body)
    writer.close()
    assert os.stat(path).st_mtime > 1


def no_close() -> None:
    writer.write(body)
    writer.write(body)
    played("held_us").value = 100_000
    writer.write(body)


def refused_once() -> None:
    writer.write(body)
    played("refused_errno").value = errno.EROFS
    writer.write(body)

    def is_told() -> bool:
        try:
            writer.write(body)
        except SegmentError as exc:
            return f"committed {writer.seq_count}, but cannot wake readers (Read-only file system)" in str(exc)
        return False

    eventually(is_told)
    assert played("refused_errno").value == 0
    last = writer.seq_count
    assert [writer.write(body) for _ in range(100)] == list(range(last + 2, last + 202, 2))


def signals() -> None:
    writer.write(body)
    writer.write(body)
    waker = next(thread for thread, name in names_of_threads().items() if name == "vmclock-waker")
    status = Path(f"/proc/self/task/{waker}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert all(blocked >> number - 1 & 1 for number in (1, 2, 14, 15)), hex(blocked)


def killed_for_a_schedule() -> None:
    forbid(KILL, SCHED_SETSCHEDULER)
    writer.write(body)
    writer.write(body)
    eventually(lambda: played("calls").value == 2)
    assert "vmclock-waker" in names_of_threads().values()
    writer.close()


def no_thread() -> None:
    forbid(EPERM, CLONE, CLONE3)
    for number in range(1, 4):
        writer.write(body)
        assert played("calls").value == number
    assert len(names_of_threads()) == 1
    writer.close()


def fork() -> None:
    global writer
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
    writer.write(body)
    writer.write(body)
    played("held_us").value = 20_000
    writer.write(body)
    child = os.fork()
    if not child:
        writer.close()
        with SegmentWriter(path + "-of-the-child") as own:
            for _ in range(3):
                own.write(body)
        del writer
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    calls = played("calls").value
    writer.write(body)
    eventually(lambda: played("calls").value > calls)
    writer.close()


async def follow(reader: SegmentReader) -> None:
    """Hear of each commit by inotify."""
    for number in range(1, 6):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: reader.wait_changed(writer.seq_count, poll_interval=3600))
            while reader.statistics().waits < number:
                await anyio.sleep(0.001)
            os.utime(path, (1, 1))
            writer.write(VMClockBody(counter_value=number))
            eventually(lambda: os.stat(path).st_mtime > 1)
        assert Path(path).read_bytes()[:8] == b"VCLK" + bytes([104, 0, 0, 0])
        assert reader.snapshot().body.counter_value == number


def refused_always(number: int) -> None:
    writer.write(body)
    played("refused_always_errno").value = number
    with SegmentReader(path) as reader:
        anyio.run(follow, reader)
    assert played("calls").value >= 6


functions: dict[str, Callable[[], None]] = {
    "first": first,
    "takes long": takes_long,
    "close": close,
    "due meanwhile": due_meanwhile,
    "no close": no_close,
    "refused once": refused_once,
    "signals": signals,
    "killed for a schedule": killed_for_a_schedule,
    "no thread": no_thread,
    "fork": fork,
    "EACCES": lambda: refused_always(errno.EACCES),
    "EPERM": lambda: refused_always(errno.EPERM),
}
functions[how]()
