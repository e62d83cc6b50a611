"""Moments of a recording: where a part of it begins, and where it ends."""

from datetime import UTC, datetime, timedelta
from typing import Final, final

from vmclock_async._notation import parse_duration
from vmclock_async.abi import TELLS_TIME, Flags, TimeType
from vmclock_async.reckoning import reckon
from vmclock_async.recording._records import Record, RecordingHeader

__all__ = ("Moment",)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@final
class Moment:
    """A moment of a recording.

    Args:
        text: a duration since the first record, with its unit (``90s``, ``1.5h``); or a time by ISO 8601 with its zone
            (``2026-03-14T15:09:32Z``), to be found by the time that the recorded bodies give. If that time went back,
            several moments of the recording have it, and one of them is found.

    Raises:
        ValueError: *text* is neither.
    """

    __module__ = "vmclock_async.recording"

    def __init__(self, text: str) -> None:
        self.text: Final = text.strip()
        self.is_utc: Final = self.text[4:5] == "-"
        """Whether it is a time; otherwise it is a duration."""
        self.ns: Final = _utc_ns(self.text) if self.is_utc else parse_duration(self.text)
        """Nanoseconds since the first record, or since 1970 (UTC)."""

    def __repr__(self) -> str:
        return f"Moment({self.text!r})"

    def reached_by(self, record: Record, header: RecordingHeader) -> bool | None:
        """Whether *record*, of a recording with *header*, was seen at this moment or later; None: it gives no time."""
        if not self.is_utc:
            return record.t_ns >= self.ns
        body = record.body
        if body.clock_status not in TELLS_TIME or header.time_type not in (TimeType.UTC, TimeType.TAI):
            return None
        offset_s = 0
        if header.time_type == TimeType.TAI:
            if not body.flags & Flags.TAI_OFFSET_VALID:
                return None
            offset_s = body.tai_offset_sec
        seen = reckon(body, body.counter_value if record.counter is None else record.counter)
        return (seen.low * 10**9 >> 64) + offset_s * 10**9 >= self.ns


def _utc_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"{text!r} is no time by ISO 8601, as in 2026-03-14T15:09:32Z") from exc
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone: add Z for UTC")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
