"""PTP clocks to play: sysfs and devices in a directory, and clocks that show CLOCK_REALTIME of this machine."""

import os
import threading
import time
from pathlib import Path
from typing import Final

from vmclock_async.timebase import Pairing, Timex, pair
from vmclock_ptp.machine import Machine, Rates
from vmclock_ptp.uapi import Crossing

KVM: Final = "KVM virtual PTP"


class PlayedPtp(Machine):
    """A machine whose PTP clocks are a test's; at first it has none. The counter is this machine's own.

    Clocks are read by ``clock_gettime(2)``, unless *is_precise*; *refused* has, by the device's name, the number of
    the error that reading it gives.
    """

    def __init__(self, directory: Path) -> None:
        self.dev, self.sys = directory / "dev", directory / "sys"
        self.dev.mkdir()
        super().__init__(dev=self.dev, sys=self.sys)
        self.ahead_ns: dict[str, int] = {}
        """How far a clock is ahead of CLOCK_REALTIME, by its device's name."""
        self.refused: dict[str, int] = {}
        self.is_precise = False
        self.unfit: str | None = None
        self.release = "6.12.9-amd64"
        self.state: Timex | None = None
        self.reads = 0
        self.readers: set[int] = set()
        """Threads that have read a clock."""
        self.calibrations = 0

    def add(self, number: int, name: str = KVM, *, claim: str | None = None) -> None:
        """Plug in ``ptpNUMBER``, called *name*; its device claims *claim*, as ENA's does."""
        sysfs = self.sys / f"class/ptp/ptp{number}"
        (sysfs / "device").mkdir(parents=True)
        (sysfs / "clock_name").write_text(f"{name}\n")
        (self.dev / f"ptp{number}").touch()
        self.claim(number, claim)

    def claim(self, number: int, claim: str | None) -> None:
        """Let the device of ``ptpNUMBER`` claim *claim*."""
        path = self.sys / f"class/ptp/ptp{number}/device/phc_error_bound"
        if claim is None:
            path.unlink(missing_ok=True)
        else:
            new = path.with_suffix(".new")
            new.write_text(claim)
            new.replace(path)  # as sysfs, which nobody finds half-written

    def _device(self, descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def _check(self, descriptor: int) -> str:
        self.reads += 1
        self.readers.add(threading.get_ident())
        device = self._device(descriptor)
        if number := self.refused.get(device):
            raise OSError(number, os.strerror(number))
        return device

    def counter_unfit_because(self) -> str | None:
        return self.unfit

    def kernel_release(self) -> str:
        return self.release

    def calibration(self) -> Rates:
        self.calibrations += 1
        return super().calibration()

    def timex(self) -> Timex | None:
        return self.state

    def pair(self, clock_id: int) -> Pairing:
        if clock_id >= 0:
            return super().pair(clock_id)
        device = self._check(~(clock_id >> 3))
        pairing = pair(time.CLOCK_REALTIME)
        return pairing._replace(clock_ns=pairing.clock_ns + self.ahead_ns.get(device, 0))

    def precise(self, descriptor: int) -> list[Crossing]:
        if not self.is_precise:
            raise OSError(95, os.strerror(95))
        device = self._check(descriptor)
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        device_ns = time.time_ns() + self.ahead_ns.get(device, 0)
        return [Crossing(device_ns, before_ns, time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))]

    def extended(self, descriptor: int) -> list[Crossing]:
        raise OSError(22, os.strerror(22))
