"""Which PTP clock is read: the one that ``ptp.device`` names, or the best that this machine has."""

from typing import Final, NamedTuple

from vmclock_async.abi import TimeType
from vmclock_async.errors import SourceUnavailableError
from vmclock_ptp.kinds import Kind, kind_of
from vmclock_ptp.machine import Machine, PtpClock
from vmclock_ptp.reading import read
from vmclock_ptp.remedies import NONE_THERE, failed

__all__ = ("AUTO", "OpenClock", "chosen")

AUTO: Final = "auto"


class OpenClock(NamedTuple):
    """A PTP clock that can be read."""

    clock: PtpClock
    kind: Kind
    time_type: TimeType
    """Its timescale, UTC or TAI."""
    descriptor: int

    def __str__(self) -> str:
        return f"{self.clock.path} ({self.clock.name or self.kind.words}, {self.time_type.name})"


def chosen(machine: Machine, device: str, timescale: TimeType | None) -> OpenClock:
    """The clock that *device* names by its path or its ``clock_name``, open; for ``auto`` the first that can be read.

    Clocks of unknown kind are not for ``auto``: nobody knows what they count, nor whether somebody sets them. A given
    *timescale* counts more than what the clock's kind says. The caller closes the descriptor.

    Raises:
        SourceUnavailableError: there is none, it cannot be read, or nobody knows its timescale.
    """
    if device.startswith("/"):
        return _opened(machine, machine.clock_at(device), timescale)
    clocks = machine.clocks()
    if device != AUTO:
        for clock in clocks:
            if clock.name == device:
                return _opened(machine, clock, timescale)
        raise _unavailable(f"no PTP clock is called {device}; {_seen(clocks)}")
    release = machine.kernel_release()
    known = [clock for clock in clocks if kind_of(clock.name, release).time_type is not None]
    refused = []
    for clock in sorted(known, key=lambda clock: kind_of(clock.name, release).rank):
        try:
            return _opened(machine, clock, timescale)
        except SourceUnavailableError as exc:
            refused.append(exc.reason)
    if refused:
        raise _unavailable("; ".join(refused))
    if clocks:
        raise _unavailable(
            f"none of the PTP clocks is one to choose unasked: name it with ptp.device; {_seen(clocks)}"
        )
    raise _unavailable(f"no PTP clock; {NONE_THERE}")


def _opened(machine: Machine, clock: PtpClock, timescale: TimeType | None) -> OpenClock:
    kind = kind_of(clock.name, machine.kernel_release())
    time_type = kind.time_type if timescale is None else timescale
    try:
        descriptor = machine.open(clock.path)
    except OSError as exc:
        raise _unavailable(failed(clock, exc, opening=True)) from exc
    try:
        if time_type is None:
            raise _unavailable(
                f"{clock.path} ({clock.name or 'its name cannot be read'}): "
                f"{kind.unusable_because or 'what it counts is not known'}; if you know it, set ptp.timescale to utc "
                "or tai"
            )
        read(machine, descriptor)
    except OSError as exc:
        machine.close(descriptor)
        raise _unavailable(failed(clock, exc)) from exc
    except SourceUnavailableError:
        machine.close(descriptor)
        raise
    return OpenClock(clock, kind, time_type, descriptor)


def _seen(clocks: list[PtpClock]) -> str:
    return "there is " + (", ".join(f"{clock.path} ({clock.name})" for clock in clocks) or "none at all")


def _unavailable(reason: str) -> SourceUnavailableError:
    return SourceUnavailableError("ptp", reason)
