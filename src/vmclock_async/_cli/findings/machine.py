"""The machine that is looked at: its paths and its kernel, all in one place, so that a test can play another one."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from vmclock_async._cli.auto import Probe
from vmclock_async._paths import default_path
from vmclock_async.errors import SourceError
from vmclock_async.sources import Probes, build_source
from vmclock_async.timebase import Timex, adjtimex, counter_unfit_because

__all__ = ("Machine", "Probing")

_LONGEST_S: Final = 1.2
"""Time, in seconds, for everything that may wait. chronyd has one second for a datagram."""
_LEAST_S: Final = 0.2


@final
class Probing:
    """Probes for sources, all at the same time; each is made and begun once.

    Args:
        longest_s: time, in seconds from now on, that all of them together may take.
    """

    def __init__(self, longest_s: float = _LONGEST_S) -> None:
        self._probes: Final[dict[str, Probe | SourceError]] = {}
        self._outcomes: Final[dict[str, str | SourceError]] = {}
        self._ends_at: Final = time.monotonic() + longest_s

    @property
    def left_s(self) -> float:
        """Time, in seconds, that another wait may take."""
        return round(max(self._ends_at - time.monotonic(), _LEAST_S), 1)

    def begin(self, name: str, **options: object) -> None:
        """Make the source *name* from *options*, and begin its probe."""
        key = _key(name, options)
        if key in self._probes:
            return
        try:
            source = build_source(name, options)
        except SourceError as exc:
            self._probes[key] = exc
            return
        self._probes[key] = probe = Probe(source)
        if isinstance(source, Probes):
            probe.begin()
        else:
            self._outcomes[key] = ""

    def outcome(self, name: str, **options: object) -> str | SourceError:
        """What the probe found in words, empty if the source has no probe; or why the source cannot be used."""
        self.begin(name, **options)
        key = _key(name, options)
        if key not in self._outcomes:
            probe = self._probes[key]
            self._outcomes[key] = probe if isinstance(probe, SourceError) else self._looked(name, probe)
        return self._outcomes[key]

    def _looked(self, name: str, probe: Probe) -> str | SourceError:
        found, absent_because = probe.look(self.left_s)
        return found if absent_because is None else SourceError(name, absent_because)


def _key(name: str, options: dict[str, Any]) -> str:
    return f"{name} {sorted(options.items())}"


@final
@dataclass(frozen=True)
class Machine:
    """This machine; a test plays another one by giving other values."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    zoneinfo: Path = Path("/usr/share/zoneinfo")
    chrony_socket: Path = Path("/run/chrony/chronyd.sock")
    chrony_port: str = "127.0.0.1:323"
    search_path: str = field(default_factory=lambda: f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    """Where programs are looked for. chronyd is in a directory that an ordinary user's PATH may lack."""
    segment: Path | None = None
    """The segment that was named; None: the one that readers find."""
    kernel_release: str = field(default_factory=lambda: os.uname().release)
    timex: Callable[[], Timex] = adjtimex
    counter_unfit_because: Callable[[], str | None] = counter_unfit_because
    utc_s: Callable[[], float] = time.time
    probing: Probing = field(default_factory=Probing)

    @property
    def device(self) -> Path:
        """Path of the first VMClock device, whether it is there or not."""
        return min(self.dev.glob("vmclock[0-9]*"), default=self.dev / "vmclock0")

    @property
    def kmsg(self) -> Path:
        """Path of the kernel's log."""
        return self.dev / "kmsg"

    def segment_path(self) -> Path:
        """Path of the segment.

        Raises:
            SegmentError: no place has one; the message names each.
        """
        return default_path() if self.segment is None else self.segment

    def options_of(self, source: str) -> dict[str, object]:
        """The options with which *source* looks at this machine."""
        match source:
            case "device":
                return {"path": self.device}
            case "vmgenid":
                return {"sysfs": self.sys, "kmsg": self.kmsg}
            case _:
                return {}
