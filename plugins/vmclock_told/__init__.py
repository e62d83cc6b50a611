"""The source ``told``: other programs report disruptions of the machine."""

from vmclock_told.source import ToldSettings, ToldSource

__all__ = ("ToldSettings", "ToldSource")
