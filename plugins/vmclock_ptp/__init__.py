"""The ptp source: the time of a PTP clock of this machine, ``/dev/ptpN``: the host's, or a network card's.

A guest needs no network and no daemon for it.
"""

from vmclock_ptp.source import PtpSettings, PtpSource

__all__ = ("PtpSettings", "PtpSource")
