"""A machine with a PTP clock, of which everything is known: true time, the counter, CLOCK_MONOTONIC_RAW, the errors.

A step of true time lies before each look at a clock, so that no two are at one moment. All is in exact fractions.
"""

import errno
import random
from fractions import Fraction
from typing import Final

from vmclock_async.timebase import Pairing, Rate, Slope, Timex
from vmclock_ptp.machine import Machine
from vmclock_ptp.uapi import Crossing

PPM: Final = Fraction(1, 10**6)
EPOCH_NS: Final = 1_790_000_000 * 10**9


class SimulatedPtp(Machine):
    """A machine of 2 GHz, nominally.

    Args:
        seed: of everything that is drawn.
        way: the best way in which its clock can be read: ``precise``, ``extended``, ``clock_gettime``.
        error_ns: the most that its clock is off; within that it is slewed up and down.
        slew_ppm: how fast it is slewed.
    """

    NS_PER_TICK: Final = Fraction(1, 2)

    def __init__(self, seed: int, way: str, *, error_ns: int, slew_ppm: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.way = way
        self.true_ns = Fraction(EPOCH_NS)
        self._ticks = Fraction(self.random.choice([10**12, 2**64 - 10**10]))
        self._error_ns = error_ns
        self._off_ns = Fraction(self.random.randint(-error_ns, error_ns))
        self._slew = slew_ppm * PPM * self.random.choice([-1, 1])
        self._off_nominal = self.random.choice([-449, 0, 449]) * PPM
        self._wander = Fraction(0)
        self.raw_ns = Fraction(10**15)

    def advance(self, ns: Fraction | int) -> None:
        """Let *ns* of true time pass."""
        self.true_ns += ns
        ticks = ns / self.NS_PER_TICK * (1 + self._off_nominal + self._wander)
        self._ticks += ticks
        self.raw_ns += ticks * self.NS_PER_TICK
        self._off_ns += ns * self._slew
        if abs(self._off_ns) > self._error_ns:
            self._off_ns = Fraction(self._error_ns if self._off_ns > 0 else -self._error_ns)
            self._slew = -self._slew

    def wander(self) -> None:
        """Let the oscillator's rate change, by at most 48 ppm in all."""
        self._wander = self.random.randint(-24, 24) * PPM

    @property
    def counter(self) -> int:
        """The counter."""
        return int(self._ticks) % 2**64

    def _pass(self, longest_ns: int) -> None:
        self.advance(Fraction(self.random.randint(1, longest_ns * 64), 64))

    def _device_ns(self) -> int:
        return int(self.true_ns + self._off_ns)

    def pair(self, clock_id: int) -> Pairing:
        before = self.counter
        self._pass(200 if clock_id >= 0 else 3000)
        clock_ns = int(self.raw_ns) if clock_id >= 0 else self._device_ns()
        self._pass(200 if clock_id >= 0 else 3000)
        window = (self.counter - before) % 2**64
        return Pairing((before + window // 2) % 2**64, clock_ns, window)

    def precise(self, descriptor: int) -> list[Crossing]:
        if self.way != "precise":
            raise OSError(errno.EOPNOTSUPP, "not this way")
        self._pass(20_000)
        crossing = Crossing(self._device_ns(), int(self.raw_ns), int(self.raw_ns))
        self._pass(20_000)
        return [crossing]

    def extended(self, descriptor: int) -> list[Crossing]:
        if self.way != "extended":
            raise OSError(errno.EINVAL, "not this way")
        crossings = []
        for _ in range(3):
            before_ns = int(self.raw_ns)
            self._pass(5000)
            device_ns = self._device_ns()
            self._pass(5000)
            crossings.append(Crossing(device_ns, before_ns, int(self.raw_ns)))
        return crossings

    def calibration(self) -> "_SimulatedRates":
        return _SimulatedRates(self)

    def timex(self) -> Timex | None:
        return None


class _SimulatedRates:
    def __init__(self, machine: SimulatedPtp) -> None:
        self._machine = machine
        self._first = machine.pair(0)

    def rate(self) -> Rate:
        slope = Slope()
        slope.add(self._first)
        slope.add(self._machine.pair(0))
        return slope.rate()
