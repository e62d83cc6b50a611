"""The replay source: it publishes a recording, commit by commit, in order, and skips none."""

from vmclock_replay.source import ReplaySettings, ReplaySource

__all__ = ("ReplaySettings", "ReplaySource")
