"""The replay source: publishes a recording, commit by commit, in order, none skipped."""

from vmclock_replay.source import ReplaySettings, ReplaySource

__all__ = ("ReplaySettings", "ReplaySource")
