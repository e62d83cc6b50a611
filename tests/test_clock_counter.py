"""What a clock makes of the counter that it reads: what speaks against it, what vouches for it, what says nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.told_world import World, body_now
from vmclock_async import SegmentWriter, _core
from vmclock_async.timebase import COUNTER_ID

x86 = pytest.mark.skipif(COUNTER_ID != 1, reason="CNTVCT is fit by architecture")
CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
HPET = f'echo hpet >"$clocksource"; mount --bind "$clocksource" {CLOCKSOURCE}'


def played(tmp_path: Path, *commands: str) -> list[str]:
    """The command line of a program in a namespace where *commands* may play *$clocksource* to it."""
    return in_own_mounts(f"clocksource={tmp_path}/clocksource", *commands)


def output_of(command: list[str], program: str, *arguments: object) -> list[str]:
    """The lines that *program* prints."""
    return subprocess.check_output([*command, path_of(program), *map(str, arguments)], text=True).splitlines()


@x86
def test_counter_that_the_kernel_does_not_trust_gives_no_time(world: World, tmp_path: Path) -> None:
    """With another clocksource than the counter's, each reading is CounterNotSupportedError and says where to look.

    So is waiting for one, which would have no end. A device that has no time to give changes nothing of it.
    """
    command = played(tmp_path, HPET)
    for fence in ("", world.device):
        lines = output_of(command, "clock_readings", world.path, fence)
        assert len(lines) == 4
        assert all("is hpet, not tsc" in line and "see the kernel's log" in line for line in lines)


@x86
def test_what_cannot_be_read_is_not_held_against_the_counter(world: World, tmp_path: Path) -> None:
    """In a hardened unit, a chroot or a sandbox, where /proc and /sys are empty, the publisher's word will do."""
    command = played(tmp_path, "mount -t tmpfs none /proc", "mount -t tmpfs none /sys")
    assert output_of(command, "clock_readings", world.path, "") == ["told"] * 4


@x86
def test_processor_that_hides_what_it_promises_is_the_publishers_affair(world: World, tmp_path: Path) -> None:
    """What the processor promises was tested by who published, or is known to a hypervisor: no reader asks again."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu tsc msr\n")
    command = played(tmp_path, f"mount --bind {tmp_path}/cpuinfo /proc/cpuinfo")
    assert output_of(command, "clock_readings", world.path, "") == ["told"] * 4


@x86
def test_device_that_gives_the_time_vouches_for_the_counter(world: World, tmp_path: Path) -> None:
    """Where the device's page counts with this counter, the hypervisor knows more of it than the guest's kernel."""
    with SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        device.write(body_now(changes={"disruption_marker": 1}), counter_id=COUNTER_ID)
        assert output_of(played(tmp_path, HPET), "clock_readings", world.path, device.path) == ["told"] * 4


@x86
def test_clock_of_early_boot_is_not_refused_for_ever(world: World, tmp_path: Path) -> None:
    """The kernel may take the counter for its clocksource later; a clock that was opened before that sees it."""
    command = played(tmp_path, HPET)
    assert output_of(command, "clocksource_back", world.path, tmp_path / "clocksource") == ["refused", "told"]


@x86
def test_counter_that_the_kernel_ceases_to_trust_is_refused_soon(world: World, tmp_path: Path) -> None:
    """Also by a clock that was opened before, and by a lease that is held, though no publisher says so."""
    command = played(tmp_path, HPET.replace("hpet", "tsc"))
    assert output_of(command, "clocksource_lost", world.path, tmp_path / "clocksource") == [
        "told",
        "lost",
        "refused",
    ]


@x86
def test_source_asks_the_processor_where_the_kernel_says_nothing(tmp_path: Path) -> None:
    """Without /proc and /sys whoever measures goes by CPUID: a promise will do, and its lack is named."""
    command = played(tmp_path, "mount -t tmpfs none /proc", "mount -t tmpfs none /sys")
    (said,) = output_of(command, "counter_unfit")
    assert said == "None" if _core.tsc_is_invariant() is not False else "CPUID 0x80000007" in said


@x86
@pytest.mark.parametrize("others", [(), ("kernel",)], ids=["alone", "beside-a-source-that-measures"])
def test_devices_time_is_published_whatever_the_guest_makes_of_the_counter(
    segment_path: Path, tmp_path: Path, others: tuple[str, ...]
) -> None:
    """The kernel's distrust keeps sources from measuring, and not a publisher from passing on the hypervisor's time."""
    with SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        device.write(body_now(changes={"disruption_marker": 1}), counter_id=COUNTER_ID)
        command = played(tmp_path, HPET)
        assert output_of(command, "relay", segment_path, device.path, *others) == ["told"]


@x86
@pytest.mark.parametrize("when", ["from-the-beginning", "later"])
def test_counter_that_may_not_be_read_is_an_error_and_no_signal(
    world: World, run_script: Callable[..., str], when: str
) -> None:
    """Where the counter is forbidden (PR_SET_TSC) a clock is refused, and a snapshot, which needs none, is given."""
    assert "PR_TSC_SIGSEGV" in run_script("forbidden_counter", world.path, when, own_interpreter=True)
