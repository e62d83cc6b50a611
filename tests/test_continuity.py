"""Whether the counter is fit to tell the time, and whether it went on without a break."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmclock_async import _core
from vmclock_async._timebase.continuity import Continuity, RecentClocksource, tsc_unfit_because
from vmclock_async.timebase import COUNTER_ID, counter_unfit_because

FIT_FLAGS = frozenset({"constant_tsc", "nonstop_tsc", "tsc"})
UNREADABLE: frozenset[str] = frozenset()


class PlayedWorld:
    """How long a machine slept, as it is to be seen at one look after the other, and its clocksource."""

    def __init__(self, *asleep_ns: tuple[int, int]) -> None:
        self.looks = [(*asleep_ns[0], 0, 0, 0)] * 4 + [(*look, 0, 0, 0) for look in asleep_ns]  # 5 looks to begin
        self.clocksource = "tsc"
        self.continuity = Continuity(clocks=self.look, clocksource=lambda: self.clocksource)

    def look(self) -> tuple[int, int, int, int, int]:
        """The next look; the last one is seen again and again."""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


# Fitness


@pytest.mark.parametrize(
    ("flags", "clocksource", "invariant", "reason"),
    [
        (FIT_FLAGS, "tsc", True, None),
        (FIT_FLAGS, "kvm-clock", True, None),
        (FIT_FLAGS, "hyperv_clocksource_tsc_page", True, None),
        (FIT_FLAGS, "hyperv_clocksource_msr", True, "does not trust the TSC.*is hyperv_clocksource_msr, not tsc"),
        (FIT_FLAGS, "tsc-early", True, "is tsc-early"),
        (FIT_FLAGS, "hpet", True, "is hpet"),
        (
            FIT_FLAGS - {"nonstop_tsc"},
            "tsc",
            False,
            "cpuinfo lacks nonstop_tsc, and the processor says.*CPUID.*needs a",
        ),
        (FIT_FLAGS - {"nonstop_tsc"}, "tsc", None, "cpuinfo lacks nonstop_tsc; a virtual machine needs"),
        (FIT_FLAGS - {"constant_tsc"}, "kvm-clock", None, "lacks constant_tsc"),
        (FIT_FLAGS - {"constant_tsc", "nonstop_tsc"}, "", None, "lacks constant_tsc and nonstop_tsc"),
        # A sandbox that plays the files without what the kernel makes of the processor's word.
        (FIT_FLAGS - {"constant_tsc", "nonstop_tsc"}, "", True, None),
        # A kernel that knows better than the processor: of a hypervisor that hides it, for one.
        (FIT_FLAGS, "tsc", False, None),
        (FIT_FLAGS, "", None, None),
        (UNREADABLE, "", True, None),
        (UNREADABLE, "", None, None),
        (UNREADABLE, "tsc", None, None),
        (UNREADABLE, "hpet", True, "is hpet"),
        (
            UNREADABLE,
            "",
            False,
            "^the TSC does not keep its rate: the processor says that its TSC is not invariant",
        ),
    ],
)
def test_fitness_of_a_tsc(
    flags: frozenset[str], clocksource: str, invariant: bool | None, reason: str | None
) -> None:
    """Unfit is what shows that it is, and the reason names what was seen; what cannot be read shows nothing."""
    found = tsc_unfit_because(flags, clocksource, invariant=invariant)
    if reason is None:
        assert found is None
    else:
        assert re.search(reason, found or "")


def test_fitness_of_this_machines_counter() -> None:
    """It is what the files and the processor say of it; an Arm counter is always fit."""
    found = counter_unfit_because()
    if COUNTER_ID == 0:
        assert found is None
        return
    flags = frozenset(re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    clocksource = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    assert found == tsc_unfit_because(flags, clocksource, invariant=_core.tsc_is_invariant())


@pytest.mark.skipif(COUNTER_ID != 1, reason="it is about x86")
def test_processor_says_what_the_kernel_makes_of_it() -> None:
    """The kernel lists nonstop_tsc where CPUID says that the TSC is invariant."""
    flags = re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    assert _core.tsc_is_invariant() is ("nonstop_tsc" in flags)


@pytest.mark.skipif(COUNTER_ID != 1, reason="it is about x86")
def test_processor_that_may_not_be_asked_says_nothing(run_script: Callable[..., str]) -> None:
    """Where CPUID is forbidden it is not executed, which would be a SIGSEGV: nothing is known, RDRAND is not used."""
    assert run_script("forbidden_cpuid") in ("None None\n", "the processor has no such thing\n")


# Continuity


def test_suspend_breaks_continuity_once() -> None:
    """A second between CLOCK_BOOTTIME and CLOCK_MONOTONIC that was not there before is a suspend."""
    world = PlayedWorld((0, 300), (100, 900), (1_000_000_000, 1_000_000_400), (1_000_000_100, 1_000_000_300))
    assert world.continuity.break_seen() is None
    assert world.continuity.break_seen() == (
        "the machine was suspended (CLOCK_BOOTTIME - CLOCK_MONOTONIC moved by 1.000000 s)"
    )
    assert world.continuity.break_seen() is None


def test_slow_look_hides_no_suspend() -> None:
    """A look that was itself interrupted for a second says little; what was known before still holds."""
    world = PlayedWorld((0, 300), (-(10**9), 300), (-100, 10**9), (400, 600))
    assert world.continuity.break_seen() is None
    assert world.continuity.break_seen() is None
    assert "moved by 0.000000" in (world.continuity.break_seen() or "")


def test_clock_that_lost_its_sleep_breaks_continuity() -> None:
    """Less sleep than before: a process restored into another time namespace, or another boot."""
    world = PlayedWorld((5 * 10**9, 5 * 10**9), (-300, 0))
    assert "moved by -5.000000 s" in (world.continuity.break_seen() or "")


def test_slow_look_hides_no_time_that_went_back() -> None:
    """The same for a time asleep that becomes less, as after a restore into another time namespace."""
    world = PlayedWorld((0, 300), (-(10**9), 300), (-600, -400))
    assert world.continuity.break_seen() is None
    assert "moved by -0.000000" in (world.continuity.break_seen() or "")


def test_another_clocksource_breaks_continuity_once() -> None:
    """The kernel turned away from the counter, or to it: named, once; with a suspend, one after the other."""
    world = PlayedWorld((0, 300), (0, 300), (0, 300), (10**9, 10**9), (10**9, 10**9), (10**9, 10**9))
    assert world.continuity.break_seen() is None
    world.clocksource = "hpet"
    assert world.continuity.break_seen() == "the kernel's clocksource changed from tsc to hpet"
    world.clocksource = "tsc"
    assert "suspended" in (world.continuity.break_seen() or "")
    assert world.continuity.break_seen() == "the kernel's clocksource changed from hpet to tsc"
    assert world.continuity.break_seen() is None


def test_this_machine_goes_on() -> None:
    """Nothing breaks here while the test runs; sleep is known to within what reading it takes."""
    continuity = Continuity()
    assert [continuity.break_seen() for _ in range(100)] == [None] * 100
    least_ns, most_ns, before_ticks, raw_ns, after_ticks = _core.clocks()
    assert least_ns <= most_ns >= 0
    assert before_ticks <= after_ticks
    assert abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - raw_ns) < 60 * 10**9


def test_recent_clocksource_is_read_ten_times_a_second() -> None:
    """Who asks before each commit is not made to open a file each time, and sees a change a tenth of a second later."""
    answers = iter(["tsc", "hpet"])
    now_ns = 5
    clocksource = RecentClocksource(read=lambda: next(answers), now_ns=lambda: now_ns)
    assert [clocksource() for _ in range(3)] == ["tsc"] * 3
    now_ns += 10**8
    assert clocksource() == "tsc"
    now_ns += 1
    assert [clocksource() for _ in range(3)] == ["hpet"] * 3
