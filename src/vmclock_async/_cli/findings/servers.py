"""Time servers, which the source ntp asks without a daemon."""

from typing import Final

from vmclock_async._cli.findings.finding import Finding, ok, refused
from vmclock_async._cli.findings.machine import Machine
from vmclock_async.errors import SourceError

__all__ = ("WITHOUT_A_DAEMON", "ntp")

WITHOUT_A_DAEMON: Final = (
    "ask time servers without a daemon: vmclock-async publish ntp --set ntp.servers=HOST,HOST,HOST"
)
"""What helps wherever there is a network."""


def ntp(machine: Machine) -> Finding:
    """Whether the cloud has time servers for its machines; others have to be set."""
    probed = machine.probing.outcome("ntp", **machine.options_of("ntp"))
    return refused(probed) if isinstance(probed, SourceError) else ok(probed, time_from="ntp")
