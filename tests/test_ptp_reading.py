"""How the ptp source reads a clock: the kernel's interface against its header, and the counter at a crossing."""

import json
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kit.fitness import fit
from kit.simulated_ptp import SimulatedPtp
from kit.stand_ins import compiled, preloaded
from vmclock_async.timebase import Pairing
from vmclock_ptp import uapi
from vmclock_ptp.machine import Machine
from vmclock_ptp.pairing import paired
from vmclock_ptp.reading import read
from vmclock_ptp.uapi import Crossing

PPM = Fraction(1, 10**6)

# The kernel's interface


def test_interface_is_that_of_the_kernels_header(tmp_path: Path) -> None:
    """Numbers of the requests, sizes and offsets are those of ``linux/ptp_clock.h``, as a C compiler sees them."""
    program = tmp_path / "ptp_abi"
    subprocess.run(["cc", "-o", program, Path(__file__).parent / "kit/ptp_abi.c"], check=True)
    lines = subprocess.check_output([program], text=True).splitlines()
    header = {name: int(number) for name, number in (line.split() for line in lines)}
    assert header == {
        "SYS_OFFSET_PRECISE": uapi.SYS_OFFSET_PRECISE,
        "SYS_OFFSET_EXTENDED": uapi.SYS_OFFSET_EXTENDED,
        "MAX_SAMPLES": uapi.MAX_SAMPLES,
        "CLOCK_TIME": uapi.CLOCK_TIME.size,
        "CLOCK_TIME.nsec": 8,
        "PRECISE": uapi.PRECISE,
        "PRECISE.sys_monoraw": 2 * uapi.CLOCK_TIME.size,
        "EXTENDED": uapi.EXTENDED,
        "EXTENDED.clockid": 4,
        "EXTENDED.ts": uapi.EXTENDED_HEADER.size,
    }


@fit
def test_clock_is_read_in_the_best_way_that_is_answered(run_script: Callable[..., str], tmp_path: Path) -> None:
    """Each of the three calls gives the clock's time at the counter, to within its window, through the C library's
    own structures; the next one is taken where one is refused, and the last one's refusal is the error."""
    library = compiled("ptp", tmp_path)
    output = run_script("read_ptp", "peg", "eg", "g", "n", environment=preloaded(library))
    *readings, refused = (json.loads(line) for line in output.splitlines())
    assert [way for way, *_ in readings] == ["PTP_SYS_OFFSET_PRECISE", "PTP_SYS_OFFSET_EXTENDED", "clock_gettime"]
    for way, ahead_ns, allowed_ns in readings:
        # The stand-in takes up to 20 us for one instant.
        assert abs(ahead_ns - 3600 * 10**9) <= allowed_ns + 20_000, way
    assert refused == ["OSError", 95]


@pytest.mark.parametrize("descriptor", [0, 3, 7, 1023])
def test_clock_id_is_as_the_kernel_makes_it(descriptor: int) -> None:
    """``((~descriptor) << 3) | CLOCKFD``: negative, with the descriptor in the upper bits."""
    clock_id = uapi.clock_id_of(descriptor)
    assert clock_id < 0
    assert (~(clock_id >> 3), clock_id & 7) == (descriptor, 3)


# The counter at a crossing

BEFORE, AFTER = Pairing(1000, 500, 40), Pairing(21_000, 10_500, 60)
"""10 us of a counter of 2 GHz."""


@pytest.mark.parametrize("turn", [0, 2**64 - 9000])
def test_pairing_by_hand(turn: int) -> None:
    """A crossing lies on the line between the pairings, give or take half the wider window, a tick, 2 ns and 500 ppm;
    so it does where the counter, which is modulo 2**64, begins again in between."""
    before = BEFORE._replace(counter_ticks=(1000 + turn) % 2**64)
    after = AFTER._replace(counter_ticks=(21_000 + turn) % 2**64)
    off = 30 + 1 + 4 + 10
    assert paired(Crossing(7, 4500, 4500), before, after) == Pairing((9000 + turn) % 2**64, 7, 2 * off)
    assert paired(Crossing(7, 4500, 4700), before, after) == Pairing((9200 + turn) % 2**64, 7, 400 + 2 * off)
    longer = after._replace(counter_ticks=(21_001 + turn) % 2**64)  # 2.0001 ticks a ns; all are rounded outward
    assert paired(Crossing(7, 4500, 4500), before, longer) == Pairing((9000 + turn) % 2**64, 7, 91)
    exchanged = before._replace(window_ticks=60), after._replace(window_ticks=40)
    assert paired(Crossing(7, 4500, 4500), *exchanged) == Pairing((9000 + turn) % 2**64, 7, 2 * off)


@pytest.mark.parametrize(
    "crossing",
    [
        Crossing(
            0, 1_790_000_000 * 10**9, 1_790_000_000 * 10**9 + 100
        ),  # CLOCK_REALTIME, from a driver of its own mind
        Crossing(0, 499, 600),
        Crossing(0, 600, 10_501),
        Crossing(0, 700, 600),
    ],
)
def test_crossing_outside_of_the_pairings_is_none(crossing: Crossing) -> None:
    """A clock that does not lie between its readings before and after is another clock, or was disturbed."""
    assert paired(crossing, BEFORE, AFTER) is None


@pytest.mark.parametrize("after", [AFTER._replace(counter_ticks=1000), AFTER._replace(counter_ticks=999)])
def test_counter_that_does_not_go_on_has_no_line(after: Pairing) -> None:
    """A counter that stands or went back gives no pairing, nor does a clock that stands."""
    assert paired(Crossing(0, 600, 700), BEFORE, after) is None
    assert paired(Crossing(0, 500, 500), BEFORE, AFTER._replace(clock_ns=500)) is None


@given(
    gaps=st.lists(st.fractions(0, 20_000, max_denominator=64), min_size=6, max_size=6),
    bend_at=st.fractions(0, 1, max_denominator=64),
    rates_ppm=st.tuples(st.integers(-500, 500), st.integers(-500, 500)),
    start=st.fractions(0, 10**6, max_denominator=64),
)
def test_true_counter_is_within_the_window(
    gaps: list[Fraction], bend_at: Fraction, rates_ppm: tuple[int, int], start: Fraction
) -> None:
    """However long each look takes, and if CLOCK_MONOTONIC_RAW changes its rate from one end of the 500 ppm to the
    other: the counter at which the device was read lies within the window."""
    moments = [Fraction(10)]
    for gap in gaps:
        moments.append(moments[-1] + 4 + gap)
    first, raw_before, device, raw_after, last, end = moments[1:]
    bend = moments[0] + bend_at * (end - moments[0])

    def raw_ns(ticks: Fraction) -> int:
        early, late = (Fraction(1, 2) * (1 + ppm * PPM) for ppm in rates_ppm)
        return int(start + min(ticks, bend) * early + max(Fraction(0), ticks - bend) * late)

    def pairing(low: Fraction, at: Fraction, high: Fraction) -> Pairing:
        window = int(high) - int(low)
        return Pairing(int(low) + window // 2, raw_ns(at), window)

    found = paired(
        Crossing(0, raw_ns(raw_before), raw_ns(raw_after)),
        pairing(moments[0], (moments[0] + first) / 2, first),
        pairing(last, (last + end) / 2, end),
    )
    if found is not None:  # all at one nanosecond
        assert abs(found.counter_ticks - device) <= Fraction(found.window_ticks, 2) + 1


# The ladder


@pytest.mark.parametrize("way", ["precise", "extended", "clock_gettime"])
def test_each_way_gives_the_counter_of_a_clock_without_error(way: str) -> None:
    """A simulated machine's clock, which is exact, shows true time at the counter of the reading, within its window."""
    for seed in range(20):
        machine = SimulatedPtp(seed, way, error_ns=0, slew_ppm=0)
        reading = read(machine, 3)
        assert reading.way.lower().endswith(way)
        since_ns = machine.true_ns - reading.pairing.clock_ns
        ticks = (machine.counter - reading.pairing.counter_ticks) % 2**64
        off = abs(ticks - since_ns / machine.NS_PER_TICK)
        assert off <= Fraction(reading.pairing.window_ticks, 2) + 4 + ticks * 449 * PPM


def test_tightest_reading_is_taken() -> None:
    """Of the crossings in one answer, and of three answers; a device that is slow now and then costs nothing."""

    class Slow(SimulatedPtp):
        answers = 0

        def extended(self, descriptor: int) -> list[Crossing]:
            self.answers += 1
            if self.answers != 2:
                self.advance(10**7)
            at_ns = int(self.raw_ns)
            crossings = [Crossing(number, at_ns, at_ns + 100 * abs(number - 4)) for number in range(3, 7)]
            self.advance(10**6)
            return crossings

    machine = Slow(1, "extended", error_ns=0, slew_ppm=0)
    reading = read(machine, 3)
    assert machine.answers == 3
    assert reading.pairing.clock_ns == 4
    assert reading.pairing.window_ticks * machine.NS_PER_TICK < 10**6 / 500


@pytest.mark.parametrize("way", ["precise", "extended"])
def test_slow_device_is_asked_once(way: str) -> None:
    """A device that takes 120 ms for each sample would else take seconds for a reading; its window is that wide."""

    class Slow(SimulatedPtp):
        answers = 0

        def _pass(self, longest_ns: int) -> None:
            if longest_ns >= 5000:
                self.advance(60_000_000)
            super()._pass(longest_ns)

        def extended(self, descriptor: int) -> list[Crossing]:
            self.answers += 1
            return super().extended(descriptor)

        def precise(self, descriptor: int) -> list[Crossing]:
            self.answers += way == "precise"
            return super().precise(descriptor)

    machine = Slow(1, way, error_ns=0, slew_ppm=0)
    reading = read(machine, 3)
    assert (reading.way.lower().endswith(way), machine.answers) == (True, 1)
    assert 24 * 10**7 * (way == "extended") <= reading.pairing.window_ticks < 25 * 10**7


def test_driver_that_gives_another_clock_is_read_in_another_way() -> None:
    """ptp_vmclock fills in CLOCK_REALTIME whatever is asked for: that is found out, and the next way is taken."""

    class Realtime(SimulatedPtp):
        def extended(self, descriptor: int) -> list[Crossing]:
            return [
                crossing._replace(raw_before_ns=time.time_ns(), raw_after_ns=time.time_ns())
                for crossing in super().extended(descriptor)
            ]

    assert read(Realtime(1, "extended", error_ns=0, slew_ppm=0), 3).way == "clock_gettime"


def test_no_clock_at_all_is_an_error() -> None:
    """A file that is no PTP clock is refused by the kernel: EINVAL."""
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="Invalid argument"):
        read(Machine(), file.fileno())
