"""What a clock makes of the counter that it reads: what speaks against it, what vouches for it, what says nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.mounts import in_own_mounts
from kit.told_world import World, body_now
from vmclock_async import SegmentWriter, _core
from vmclock_async.timebase import COUNTER_ID

x86 = pytest.mark.skipif(COUNTER_ID != 1, reason="CNTVCT is fit by architecture")
CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
HPET = f'echo hpet >"$clocksource"; mount --bind "$clocksource" {CLOCKSOURCE}'

READ_SCRIPT = """
import anyio, sys, time
from vmclock_async import Clock, CounterNotSupportedError

def ways(clock):
    async def wait():
        with anyio.fail_after(10):
            await clock.wait_bounded()
    yield clock.now
    yield lambda: clock.at(counter)
    yield lambda: clock.at_monotonic(ns)
    yield lambda: anyio.run(wait)

segment, fence = sys.argv[1:3]
with Clock(segment, fence=fence or None) as clock:
    counter, ns = clock.counter_ticks(), time.monotonic_ns()
    for way in ways(clock):
        try:
            way()
            print("told")
        except CounterNotSupportedError as exc:
            print(exc)
"""


def played(tmp_path: Path, *commands: str) -> list[str]:
    """The command line of a script in a namespace where *commands* may play *$clocksource* to it."""
    return in_own_mounts(f"clocksource={tmp_path}/clocksource", *commands)


def output_of(command: list[str], script: str, *arguments: object) -> list[str]:
    """The lines that *script* prints."""
    return subprocess.check_output([*command, script, *map(str, arguments)], text=True).splitlines()


@x86
def test_a_counter_that_the_kernel_does_not_trust_gives_no_time(world: World, tmp_path: Path) -> None:
    """With another clocksource than the counter's, each reading is CounterNotSupportedError and says where to look.

    So is waiting for one, which would have no end. A device that has no time to give changes nothing of it.
    """
    command = played(tmp_path, HPET)
    for fence in ("", world.device):
        lines = output_of(command, READ_SCRIPT, world.path, fence)
        assert len(lines) == 4
        assert all("is hpet, not tsc" in line and "see the kernel's log" in line for line in lines)


@x86
def test_what_cannot_be_read_is_not_held_against_the_counter(world: World, tmp_path: Path) -> None:
    """In a hardened unit, a chroot or a sandbox, where /proc and /sys are empty, the publisher's word will do."""
    command = played(tmp_path, "mount -t tmpfs none /proc", "mount -t tmpfs none /sys")
    assert output_of(command, READ_SCRIPT, world.path, "") == ["told"] * 4


@x86
def test_a_processor_that_hides_what_it_promises_is_the_publishers_affair(world: World, tmp_path: Path) -> None:
    """What the processor promises was tested by who published, or is known to a hypervisor: no reader asks again."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu tsc msr\n")
    command = played(tmp_path, f"mount --bind {tmp_path}/cpuinfo /proc/cpuinfo")
    assert output_of(command, READ_SCRIPT, world.path, "") == ["told"] * 4


@x86
def test_a_device_that_gives_the_time_vouches_for_the_counter(world: World, tmp_path: Path) -> None:
    """Where the device's page counts with this counter, the hypervisor knows more of it than the guest's kernel."""
    with SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        device.write(body_now(changes={"disruption_marker": 1}), counter_id=COUNTER_ID)
        assert output_of(played(tmp_path, HPET), READ_SCRIPT, world.path, device.path) == ["told"] * 4


BACK_SCRIPT = """
import sys
from vmclock_async import Clock, CounterNotSupportedError
with Clock(sys.argv[1], fence=None) as clock:
    try:
        clock.now()
    except CounterNotSupportedError:
        print("refused")
    with open(sys.argv[2], "w") as clocksource:
        print("tsc", file=clocksource)
    clock.now()
    print("told")
"""


@x86
def test_a_clock_of_early_boot_is_not_refused_for_ever(world: World, tmp_path: Path) -> None:
    """The kernel may take the counter for its clocksource later; a clock that was opened before that sees it."""
    command = played(tmp_path, HPET)
    assert output_of(command, BACK_SCRIPT, world.path, tmp_path / "clocksource") == ["refused", "told"]


UNFIT_SCRIPT = """
from vmclock_async.timebase import counter_unfit_because
print(counter_unfit_because())
"""


@x86
def test_a_source_asks_the_processor_where_the_kernel_says_nothing(tmp_path: Path) -> None:
    """Without /proc and /sys whoever measures goes by CPUID: a promise will do, and its lack is named."""
    command = played(tmp_path, "mount -t tmpfs none /proc", "mount -t tmpfs none /sys")
    (said,) = output_of(command, UNFIT_SCRIPT)
    assert said == "None" if _core.tsc_is_invariant() is not False else "CPUID 0x80000007" in said


RELAY_SCRIPT = """
import anyio, sys
from vmclock_async import ClockStatus, Publisher, SegmentReader, open_clock
from vmclock_device import DeviceSettings, DeviceSource
from vmclock_kernel import KernelSettings, KernelSource

async def main(segment, device, *others):
    sources = {"device": DeviceSource(DeviceSettings(path=device))}
    if others:
        sources["kernel"] = KernelSource(KernelSettings())
    publisher = Publisher(segment, sources)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        with anyio.fail_after(20):
            while publisher.statistics().commits == 0 or any(
                source.updates == 0 for source in publisher.statistics().sources.values()
            ):
                await anyio.sleep(0.01)
            async with open_clock(segment, fence=device) as clock:
                await clock.wait_bounded()
        print("told")
        tasks.cancel_scope.cancel()

anyio.run(main, *sys.argv[1:])
"""


@x86
@pytest.mark.parametrize("others", [(), ("kernel",)], ids=["alone", "beside-a-source-that-measures"])
def test_a_devices_time_is_published_whatever_the_guest_makes_of_the_counter(
    segment_path: Path, tmp_path: Path, others: tuple[str, ...]
) -> None:
    """The kernel's distrust keeps sources from measuring, and not a publisher from passing on the hypervisor's time."""
    with SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        device.write(body_now(changes={"disruption_marker": 1}), counter_id=COUNTER_ID)
        command = played(tmp_path, HPET)
        assert output_of(command, RELAY_SCRIPT, segment_path, device.path, *others) == ["told"]


FORBIDDEN_SCRIPT = """
import ctypes, sys
from vmclock_async import Clock, CounterNotSupportedError, SegmentReader, timebase

prctl, path, said = ctypes.CDLL(None).prctl, sys.argv[1], []
reader = SegmentReader(path)
if sys.argv[2] == "later":
    reader.sample()
    ways = lambda: Clock(path), reader.sample
else:  # in a thread that never asked
    ways = timebase.counter_ticks, lambda: timebase.pair(1), lambda: Clock(path), reader.sample
# From here on nearly all of Python that asks for a time dies, and each lock does that.
assert not prctl(26, 2, 0, 0, 0)  # PR_SET_TSC, PR_TSC_SIGSEGV
for way in ways:
    try:
        way()
    except CounterNotSupportedError as exc:
        said.append(str(exc))
said.append(timebase.counter_unfit_because())
seq_count = reader.snapshot().seq_count
assert not prctl(26, 1, 0, 0, 0)
assert len(said) == len(ways) + 1 and len(set(said)) == 1
assert seq_count == reader.seq_count
print(said[0])
Clock(path).close()
"""


@x86
@pytest.mark.parametrize("when", ["from-the-beginning", "later"])
def test_a_counter_that_may_not_be_read_is_an_error_and_no_signal(
    world: World, run_script: Callable[..., str], when: str
) -> None:
    """Where the counter is forbidden (PR_SET_TSC) a clock is refused, and a snapshot, which needs none, is given."""
    assert "PR_TSC_SIGSEGV" in run_script(FORBIDDEN_SCRIPT, world.path, when)
