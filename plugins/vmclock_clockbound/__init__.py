"""The clockbound source: the time of this machine's own clock, with the bound that ClockBound's daemon gives it."""

from vmclock_clockbound.source import ClockBoundSettings, ClockBoundSource

__all__ = ("ClockBoundSettings", "ClockBoundSource")
