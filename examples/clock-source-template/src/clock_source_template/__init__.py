"""A source of time for ``vmclock-async publish``: what one NTP server says, with a bound."""

from clock_source_template.source import SntpSettings, SntpSource

__all__ = ("SntpSettings", "SntpSource")
