"""Kill writers, and damage and replace their segment, in random order.

One process that forks its writers: a fork is quick, so the rows come often, and kills come at any moment.
"""

import json
import os
import random
import signal
import struct
import sys
import time

from vmclock_async import SegmentWriter, VMClockBody

path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)


def write_until_killed(size: int) -> None:
    with SegmentWriter(path, size=size) as writer:
        number = writer.body.disruption_marker
        while True:
            number = number % (2**63) + 1
            writer.write(
                VMClockBody(
                    disruption_marker=number,
                    counter_value=number,
                    time_sec=number,
                    time_maxerror_nanosec=number,
                    vm_generation_counter=number if writer.size >= 112 else None,
                ),
                counter_id=number & 1,
            )


def run_writer(size: int = 104) -> None:
    life_s = chance.uniform(0.001, 0.03)
    pid = os.fork()
    if pid == 0:
        try:
            # SIGPROF kills as SIGKILL does. Processor time is what a writer needs to get anywhere on a busy machine.
            signal.setitimer(signal.ITIMER_PROF, life_s)
            write_until_killed(size)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        sys.exit("a writer ended by itself")


def poke(offset: int, form: str, *values: int) -> None:
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, struct.pack(form, *values), offset)
    os.close(fd)


def seq_count() -> int:
    with open(path, "rb") as file:
        return int.from_bytes(file.read(16)[12:], "little")


def replace(content: bytes) -> None:
    """Another file, whole from the start."""
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.rename(path + ".new", path)


def settle() -> None:
    """Something to find: a writer may have been killed before it got that far."""
    while not os.path.exists(path) or os.path.getsize(path) < 104:
        run_writer()


def nothing() -> None:
    os.unlink(path)


def empty() -> None:
    replace(b"")


def short() -> None:
    replace(b"VCLK" * 10)


def warm() -> None:
    pass


def left_odd() -> None:
    """As a writer leaves it that dies in mid-update: odd, then some of the body."""
    poke(12, "<I", seq_count() | 1)
    poke(0x18, "<QQ", chance.getrandbits(64) & ~256, 0)


def earlier_boot() -> None:
    if "user.vmclock_async.boot_id" in os.listxattr(path):
        os.removexattr(path, "user.vmclock_async.boot_id")
    os.utime(path, ns=(0, 0))


def other_version() -> None:
    poke(8, "<H", 9)


def version_0() -> None:
    poke(8, "<H", 0)


def other_magic() -> None:
    poke(0, "<I", 7)


def size_past_the_end() -> None:
    poke(4, "<I", 4096)


def about_to_wrap() -> None:
    body = VMClockBody(disruption_marker=1, counter_value=1, time_sec=1, time_maxerror_nanosec=1)
    replace(struct.pack("<IIHBBI", 0x4B4C4356, 104, 1, 0, 0, 0xFFFFFFF0) + body.pack())


rows = [
    (before, size)
    for before in (
        nothing,
        empty,
        short,
        warm,
        left_odd,
        earlier_boot,
        other_version,
        version_0,
        other_magic,
        size_past_the_end,
        about_to_wrap,
    )
    for size in (104, 112)
]
done: dict[str, int] = {}
deadline = time.monotonic() + seconds
readers = sys.argv[4:]
while time.monotonic() < deadline or len(done) < len(rows) or not all(map(os.path.exists, readers)):
    chance.shuffle(rows)
    for before, size in rows:
        settle()
        before()
        run_writer(size)
        done[f"{before.__name__}-{size}"] = done.get(f"{before.__name__}-{size}", 0) + 1
print(json.dumps(done))
