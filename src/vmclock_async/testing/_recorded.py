"""A clock over a recording."""

import os
from typing import Final, final

from vmclock_async._reading.recorded_feed import RecordedFeed
from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.clock import Clock
from vmclock_async.recording import Moment

__all__ = ("RecordedClock",)


@final
class RecordedClock(Clock):
    """A ``Clock`` over a recording, in virtual time: what programs saw, at any moment of an incident.

    Time begins at the first record. It runs with the event loop (``anyio.current_time()``), and so with the loop's test
    clock if it has one, such as trio's ``MockClock``; ``advance`` makes it jump ahead. Outside of a loop it stands
    still. ``events()`` plays the records one by one, however far time jumps ahead.

    ``now()`` gives what a reader on the recorded machine had, as far as a recording shows it: there is no fence, and
    between two records the counter runs as fast as the page says.

    Args:
        path: path of the recording, JSON Lines, perhaps compressed with gzip; see ``recording``.
        max_age: see ``Clock``.
        max_drift_ppm: see ``Clock``.
        follow_loop: whether time runs with the event loop; if not, only ``advance`` moves it.
        start: where a part of the recording begins, as for ``recording.Moment``: ``"90s"``, ``"2026-03-14T15:09:32Z"``.
            Time begins at the part's first record then.
        until: where the part ends; its records were seen before.

    Raises:
        RecordingError: it is no recording, or it has no record there.
        ValueError: *max_age* or *max_drift_ppm* is out of range, or *start* or *until* is no moment.
    """

    _instead = "send the path of the recording, and make one there"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_age: float = 1000.0,
        max_drift_ppm: float | None = None,
        follow_loop: bool = True,
        start: str | None = None,
        until: str | None = None,
    ) -> None:
        part = {name: Moment(text) if text else None for name, text in (("start", start), ("until", until))}
        self._time: Final = VirtualTime(follow_loop=follow_loop)
        self._recorded: Final = RecordedFeed(path, self._time, **part)
        self._read_from(self._recorded, max_age=max_age, max_drift_ppm=max_drift_ppm)

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from the first record to the last."""
        return self._recorded.duration_ns

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds of virtual time since the first record; after the last record, time goes on."""
        return self._time.elapsed_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by at once; tasks that wait for them go on.

        Raises:
            ValueError: *seconds* is negative or not a number.
        """
        self._time.advance(seconds)
