"""What ``doctor`` looks at: one function a finding, one module a subject.

A finding looks and changes nothing, needs no privilege, and never ends the command: if the code of one fails, that is a
finding too. What cannot be read is unknown, and a warning at most.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, final

from vmclock_async._cli.findings import (
    chronyd,
    counter,
    guest,
    installed,
    kernel_clock,
    process,
    published,
    servers,
)
from vmclock_async._cli.findings.finding import Finding, Level, warning
from vmclock_async._cli.findings.machine import Machine, Probing
from vmclock_async._wording import failure
from vmclock_async.sources import SOURCES_VARIABLE, installed_sources

__all__ = ("LOOKS", "Finding", "Level", "Machine", "Probing", "Report", "look")

LOOKS: Final[Mapping[str, Callable[[Machine], Finding]]] = {
    "kernel": guest.kernel,
    "device": guest.device,
    "vmgenid": guest.vmgenid,
    "kernel-log": guest.kernel_log,
    "ptp": guest.ptp,
    "counter": counter.counter,
    "clocksource": counter.clocksource,
    "proc": counter.proc,
    "sys": counter.sys,
    "chrony-socket": chronyd.chrony_socket,
    "chrony-port": chronyd.chrony_port,
    "chronyd-version": chronyd.chronyd_version,
    "pychrony": chronyd.pychrony,
    "ntp": servers.ntp,
    "kernel-clock": kernel_clock.kernel_clock,
    "tai-offset": kernel_clock.tai_offset,
    "leap-seconds": kernel_clock.leap_seconds,
    "segment": published.segment,
    "reading": published.reading,
    "publisher": published.publisher,
    "memory": published.memory,
    "told": published.told,
    "inotify": process.inotify,
    "time-namespace": process.time_namespace,
    "sources": installed.sources,
}
"""The findings by their ids, in the order in which they are shown."""
_OF_TIME: Final = ("device", "chrony-socket", "chrony-port", "ntp", "kernel-clock", "reading")
"""Findings that say whether a time can be had."""


@final
class Report(NamedTuple):
    """All findings of a machine."""

    findings: Mapping[str, Finding]

    @property
    def possible(self) -> list[str]:
        """Names of what can give a bounded time; ``segment`` is one that is published already."""
        return list(dict.fromkeys(finding.time_from for finding in self.findings.values() if finding.time_from))

    @property
    def verdict(self) -> str:
        """What all of it comes to, in one line: what was seen, a semicolon, the remedy if there is one."""
        if self.possible:
            return f"a bounded time is possible from: {', '.join(self.possible)}"
        counter = self.findings["counter"]
        if counter.level is Level.MISSING:
            return f"nothing here can give a bounded time: {_plain(counter.found)}; {_plain(counter.remedy)}"
        seen = ", ".join(_plain(self.findings[name].found) for name in _OF_TIME)
        nearest = min(
            (self.findings[name] for name in _OF_TIME[1:]), key=lambda found: found.level is Level.MISSING
        )
        otherwise = f", or {servers.WITHOUT_A_DAEMON}" if "ntp" in installed_sources() else ""
        return f"nothing here can give a bounded time: {seen}; {_plain(nearest.remedy)}{otherwise}"


def _plain(text: str) -> str:
    """*text* without semicolons, because the verdict's own divides what was seen from the remedy."""
    return text.replace("; ", ", ")


def look(machine: Machine) -> Report:
    """Look at *machine*; takes less than two seconds."""
    with suppress(Exception):  # a finding that needs a probe says what is wrong
        installed.begin_probes(machine)
    usable = {*installed_sources(), "segment", ""}
    return Report({name: _looked(see, machine, usable) for name, see in LOOKS.items()})


def _looked(see: Callable[[Machine], Finding], machine: Machine, usable: Collection[str]) -> Finding:
    try:
        found = see(machine)
        if found.time_from in usable:
            return found
        return warning(
            f"{found.found}, but the source {found.time_from} may not be used",
            f"add {found.time_from} to {SOURCES_VARIABLE}",
        )
    except Exception as exc:  # a machine of a kind that nobody foresaw must not hide the other findings
        return warning(f"it could not be looked at ({failure(exc)})", "report it as a bug, with a --bundle")
