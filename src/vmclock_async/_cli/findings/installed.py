"""The sources of time that are installed, and which of them find on this machine what they need."""

from typing import Final

from vmclock_async._cli.findings.finding import Finding, missing, ok, warning
from vmclock_async._cli.findings.machine import Machine
from vmclock_async.errors import SourceError, SourceSettingsError
from vmclock_async.sources import installed_sources

__all__ = ("begin_probes", "sources")

_WITH_FINDINGS: Final = ("device", "vmgenid", "told", "chrony", "ntp", "kernel")
"""Sources whose time has findings of its own."""


def begin_probes(machine: Machine) -> None:
    """Begin all probes, so that none waits for another."""
    machine.probing.begin("chrony", address=str(machine.chrony_socket))
    machine.probing.begin("chrony", address=machine.chrony_port)
    for name in installed_sources():
        machine.probing.begin(name, **machine.options_of(name))


def sources(machine: Machine) -> Finding:
    """The installed sources: which are broken, and which find what they need."""
    there, absent, unprobed, broken = [], [], [], []
    time_from = ""
    for name, source in installed_sources().items():
        probed = machine.probing.outcome(name, **machine.options_of(name))
        if isinstance(probed, SourceSettingsError) or probed == "":
            unprobed.append(name)
        elif not isinstance(probed, SourceError):
            there.append(name)
            # One that does not say where its time comes from has none.
            if name not in _WITH_FINDINGS and hasattr(source.load(), "rests_on_system_clock"):
                time_from = name
        elif _is_broken(source.name):
            broken.append(f"{name} of {source.distribution} ({probed.seen})")
        else:
            absent.append(name)
    groups = {"present": there, "absent": absent, "not probed": unprobed, "broken": broken}
    found = ", ".join(f"{kind}: {' '.join(names)}" for kind, names in groups.items() if names)
    if not (there or absent or unprobed or broken):
        return missing("no source is installed", "pip install 'vmclock-async[chrony]'")
    if broken:
        return warning(found, "repair or uninstall the distribution of the broken one", time_from=time_from)
    return ok(found, time_from=time_from)


def _is_broken(name: str) -> bool:
    try:
        installed_sources()[name].load()
    except SourceError:
        return True
    return False
