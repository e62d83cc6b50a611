"""The ntp source: the time of NTP servers, asked by the publisher itself, with no daemon."""

from vmclock_ntp.source import NtpSettings, NtpSource

__all__ = ("NtpSettings", "NtpSource")
