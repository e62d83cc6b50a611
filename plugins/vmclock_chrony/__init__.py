"""The time of chronyd, with its bound, from the ``tracking`` report of its command socket."""

from vmclock_chrony.source import ChronySettings, ChronySource

__all__ = ("ChronySettings", "ChronySource")
