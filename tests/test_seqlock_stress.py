"""The seqlock between processes: no torn body, and no seq_count that goes back, whatever happens to the writer.

Every body follows from one number, so that a body mixed of two shows. Readers report what they saw as JSON; a
reader that dies of a signal (SIGBUS, should a file ever be cut short under its mapping) fails by its exit code.

VMCLOCK_ASYNC_STRESS_SECONDS sets how long each test runs.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("VMCLOCK_ASYNC_STRESS_SECONDS", "2"))

pytestmark = pytest.mark.timeout(60 + 5 * SECONDS)

MakePage = Callable[..., bytes]
StartScript = Callable[..., "subprocess.Popen[str]"]

FULL_SPEED_WRITER = """
import os, select, sys
from vmclock_async import _core

page = _core.Page(os.open(sys.argv[1], os.O_RDWR), writable=True)
print("ready", flush=True)
sys.stdin.readline()
number = 1
while not select.select([sys.stdin], [], [], 0)[0]:  # until its end
    for _ in range(1000):
        number += 1
        page.commit(number.to_bytes(8, "little") * 11, number & 255, number >> 8 & 255)
print(number - 1)
"""

FULL_SPEED_READER = """
import json, os, sys, time
from vmclock_async import SegmentReader, _core

path, seconds, how = sys.argv[1], float(sys.argv[2]), sys.argv[3]
seen = {"read": 0, "changes": 0, "torn": 0, "backward": 0, "missed": 0}

def judge(seq_count, whole):
    global last
    seen["read"] += 1
    seen["torn"] += not whole
    ahead = (seq_count - last) % 2**32
    seen["changes"] += ahead != 0
    seen["backward"] += ahead >= 2**31
    last = seq_count

def look_at_bytes():
    copy = page.read()
    if copy is None:
        seen["missed"] += 1
        return
    constants = copy[10], copy[11]
    whole = copy[16:104] == copy[16:24] * 11 and constants in ((0, 0), (copy[16], copy[17]))
    judge(int.from_bytes(copy[12:16], "little"), whole)

def look_at_snapshot():
    snapshot = reader.snapshot()
    body = snapshot.body
    number = body.disruption_marker
    low = number.to_bytes(8, "little")
    judge(snapshot.seq_count, (
        body.flags, body.counter_value, body.counter_period_frac_sec, body.counter_period_esterror_rate_frac_sec,
        body.counter_period_maxerror_rate_frac_sec, body.time_sec, body.time_frac_sec,
        body.time_esterror_nanosec, body.time_maxerror_nanosec,
    ) == (number,) * 9 and (
        body.clock_status, body.leap_second_smearing_hint, body.tai_offset_sec, body.leap_indicator,
        body.counter_period_shift,
    ) == (low[2], low[3], int.from_bytes(low[4:6], "little", signed=True), low[6], low[7]))

with SegmentReader(path) as reader:
    page = _core.Page(os.open(path, os.O_RDONLY))
    last = reader.seq_count & ~1
    look = look_at_bytes if how == "bytes" else look_at_snapshot
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + seconds
    # A reader that saw little proves little.
    while time.monotonic() < deadline or seen["read"] < 1000 or seen["changes"] < 10:
        for _ in range(100):
            look()
print(json.dumps(seen))
"""


def go(process: "subprocess.Popen[str]") -> None:
    """Tell *process*, which is ready, to begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_readers_beside_a_writer_at_full_speed_see_whole_bodies(
    start_script: StartScript, segment_path: Path, make_page: MakePage
) -> None:
    """Four readers and a writer that never rests, across the wrap of seq_count: nothing torn, nothing backward."""
    segment_path.write_bytes(make_page(seq_count=0xFFFFF000))
    readers = [start_script(FULL_SPEED_READER, segment_path, SECONDS, how) for how in ("bytes", "snapshot") * 2]
    writer = start_script(FULL_SPEED_WRITER, segment_path)
    processes = [*readers, writer]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    outputs = [process.communicate()[0] for process in processes]  # the writer last: it goes on for the readers
    assert [process.returncode for process in processes] == [0] * len(processes)
    for output in outputs[:-1]:
        seen = json.loads(output)
        assert seen["torn"] == 0, seen
        assert seen["backward"] == 0, seen


# Readers that live through everything that can happen to a segment.

LONG_LIVED_READER = """
import json, os, sys
from vmclock_async import SegmentReader, VMClockBody
from vmclock_async.errors import SegmentError

path, how = sys.argv[1:]
os.set_blocking(0, False)
seen = {"read": 0, "changes": 0, "inodes": 0, "problems": []}
numbers = {}

def told_to_end():
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False

def judge(snapshot):
    body = snapshot.body
    number = body.disruption_marker
    seen["read"] += 1
    if not number:
        seen["problems"].append(f"zeros at seq_count {snapshot.seq_count}")
    generation = number if body.flags & 256 else None
    if (body.counter_value, body.time_sec, body.time_maxerror_nanosec, body.vm_generation_counter) != (
        number, number, number, generation
    ):
        seen["problems"].append(f"torn at seq_count {snapshot.seq_count}: {body!r}")
    last = numbers.get(snapshot.inode)
    if last is None:
        seen["inodes"] += 1
    else:
        ahead = (snapshot.seq_count - last) % 2**32
        seen["changes"] += ahead != 0
        if ahead >= 2**31:
            seen["problems"].append(f"seq_count went from {last} to {snapshot.seq_count}")
    numbers[snapshot.inode] = snapshot.seq_count
    if seen["read"] > (10 if how == "wait" else 100) and seen["changes"] > 10:
        open(f"{path}.{how}", "w").close()  # enough: a reader that saw little proves little

def look(reader):
    try:
        judge(reader.snapshot())
    except SegmentError:
        seen["refused"] = seen.get("refused", 0) + 1  # not initialized, or left odd: for now

def open_again_and_again():
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            continue
        with reader:
            for _ in range(20):
                look(reader)

def is_there(reader):
    try:
        return os.stat(path).st_ino == inode_of(reader)
    except FileNotFoundError:
        return False

def inode_of(reader):
    return os.fstat(reader._mapped.page.fileno()).st_ino

def stay():
    "One mapping for as long as its file is at the path, through all that happens in place."
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            continue
        with reader:
            while is_there(reader) and not told_to_end():
                for _ in range(20):
                    look(reader)

async def wait():
    import anyio
    last = None
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            await anyio.sleep(0.001)
            continue
        with reader:
            seq_count = 1
            while not told_to_end():
                try:
                    with anyio.move_on_after(2):  # to see whether it is told to end
                        snapshot = await reader.wait_changed(seq_count, poll_interval=0.005)
                        judge(snapshot)
                        seq_count = snapshot.seq_count
                except SegmentError:
                    seen["refused"] = seen.get("refused", 0) + 1
                    await anyio.sleep(0.001)

print("ready", flush=True)
if how == "wait":
    import anyio
    anyio.run(wait)
elif how == "stay":
    stay()
else:
    open_again_and_again()
seen["problems"] = seen["problems"][:5]
print(json.dumps(seen))
"""

# One process that forks its writers: a fork is quick, so the rows come often, and kills come at any moment.
UPHEAVAL = """
import json, os, random, signal, struct, sys, time
from vmclock_async import SegmentWriter, VMClockBody

path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)

def write_until_killed(size):
    with SegmentWriter(path, size=size) as writer:
        number = writer.body.disruption_marker
        while True:
            number = number % (2**63) + 1
            writer.write(VMClockBody(
                disruption_marker=number, counter_value=number, time_sec=number, time_maxerror_nanosec=number,
                vm_generation_counter=number if writer.size >= 112 else None,
            ), counter_id=number & 1)

def run_writer(size=104):
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(size)
        finally:
            os._exit(1)
    time.sleep(chance.uniform(0.001, 0.03))  # how long this writer lives: a length, not a wait for something
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        sys.exit("a writer ended by itself")

def poke(offset, form, *values):
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, struct.pack(form, *values), offset)
    os.close(fd)

def seq_count():
    with open(path, "rb") as file:
        return struct.unpack("<I", file.read(16)[12:])[0]

def replace(content):
    "Another file, whole from the start."
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.rename(path + ".new", path)

def settle():
    "Something to find: a writer may have been killed before it got that far."
    while not os.path.exists(path) or os.path.getsize(path) < 104:
        run_writer()

def nothing(): os.unlink(path)
def empty(): replace(b"")
def short(): replace(b"VCLK" * 10)
def warm(): pass
def left_odd():
    "As a writer leaves it that dies in mid-update: odd, then some of the body."
    poke(12, "<I", seq_count() | 1)
    poke(0x18, "<QQ", chance.getrandbits(64) & ~256, 0)
def earlier_boot():
    if "user.vmclock_async.boot_id" in os.listxattr(path):
        os.removexattr(path, "user.vmclock_async.boot_id")
    os.utime(path, ns=(0, 0))
def other_version(): poke(8, "<H", 9)
def version_0(): poke(8, "<H", 0)
def other_magic(): poke(0, "<I", 7)
def size_past_the_end(): poke(4, "<I", 4096)
def about_to_wrap():
    body = VMClockBody(disruption_marker=1, counter_value=1, time_sec=1, time_maxerror_nanosec=1)
    replace(struct.pack("<IIHBBI", 0x4B4C4356, 104, 1, 0, 0, 0xFFFFFFF0) + body.pack())

rows = [
    (before, size)
    for before in (nothing, empty, short, warm, left_odd, earlier_boot, other_version, version_0, other_magic,
                   size_past_the_end, about_to_wrap)
    for size in (104, 112)
]
done = {}
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
"""


def test_readers_live_through_every_start_of_a_writer(start_script: StartScript, segment_path: Path) -> None:
    """Writers killed at any moment, every row of starting one: readers neither die nor see a false body."""
    ways = ("stay", "open-again", "wait")
    readers = [start_script(LONG_LIVED_READER, segment_path, how) for how in ways]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    enough = [f"{segment_path}.{how}" for how in ways]
    upheaval = start_script(UPHEAVAL, segment_path, SECONDS, os.getpid(), *enough)
    output, _ = upheaval.communicate()
    assert upheaval.returncode == 0, f"seed {os.getpid()}: {output}"
    assert len(json.loads(output)) == 22
    outputs = [reader.communicate()[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * len(readers)
    for found in outputs:
        seen = json.loads(found)
        assert seen["problems"] == [], seen
