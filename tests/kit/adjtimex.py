"""The test's side of ``adjtimex.c``: what another process is to see of the kernel's clock."""

import mmap
import struct
import time
from pathlib import Path
from typing import Final

from kit.stand_ins import preloaded

STA_PLL: Final = 0x0001
STA_INS: Final = 0x0010
STA_DEL: Final = 0x0020
STA_UNSYNC: Final = 0x0040
STA_CLOCKERR: Final = 0x1000
STA_NANO: Final = 0x2000

_FIELDS: Final = (
    "sequence",
    "refused",
    "base_ns",
    "raw_base_ns",
    "rate_ppb",
    "leap_at_ns",
    "late_ns",
    "status",
    "offset",
    "freq",
    "maxerror",
    "esterror",
    "tick",
    "tai",
    "set_refused",
    "sets",
)
"""Of ``struct played``, each 64 bits; units as in ``struct timex``."""


class AdjtimexStandIn:
    """A played clock: at first synchronized by the kernel's own loop to about 2 ms, and with a TAI offset."""

    def __init__(self, library: Path, file: Path) -> None:
        self._values = dict.fromkeys(_FIELDS, 0)
        file.write_bytes(bytes(8 * len(_FIELDS)))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), 0)
        self.environment: Final = {**preloaded(library), "ADJTIMEX_STAND_IN": str(file)}
        """What a process needs to see it."""
        self.play(status=STA_PLL | STA_NANO, maxerror=2001, esterror=300, tick=10_000, tai=37)

    def play(self, **values: int) -> None:
        """Give *values* from now on, all at once; see ``struct played``."""
        assert values.keys() <= self._values.keys(), values
        self._values.update(values)
        odd = self._values["sequence"] + 1
        struct.pack_into("=q", self._mapped, 0, odd)
        self._values["sequence"] = odd + 1
        struct.pack_into(f"={len(_FIELDS) - 1}q", self._mapped, 8, *list(self._values.values())[1:])
        struct.pack_into("=q", self._mapped, 0, odd + 1)

    def played(self, name: str) -> int:
        """The value *name* that is given now."""
        return self._values[name]

    def seen(self, name: str) -> int:
        """The value *name* as it is now, which a process may have changed by setting the clock."""
        value: int = struct.unpack_from("=q", self._mapped, 8 * _FIELDS.index(name))[0]
        return value

    def play_realtime(self, realtime_ns: int, *, rate_ppb: int = 0) -> None:
        """Let CLOCK_REALTIME be *realtime_ns* now, and go on faster than CLOCK_MONOTONIC_RAW by *rate_ppb*."""
        raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        self.play(base_ns=realtime_ns, raw_base_ns=raw_ns, rate_ppb=rate_ppb)

    def play_step(self, step_ns: int) -> None:
        """Let CLOCK_REALTIME be *step_ns* ahead of what it is, to within the tightest of ten readings."""
        raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        readings = []
        for _ in range(10):
            realtime_ns, before_ns = time.time_ns(), raw_ns
            raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            readings.append((raw_ns - before_ns, realtime_ns, (before_ns + raw_ns) // 2))
        _, realtime_ns, raw_ns = min(readings)
        self.play(base_ns=realtime_ns + step_ns, raw_base_ns=raw_ns, rate_ppb=0)

    def close(self) -> None:
        """Unmap the file."""
        self._mapped.close()
