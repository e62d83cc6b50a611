"""The replay source and its settings.

``recorded`` publishes every body bit for bit, at the recorded pace times ``speed``. ``live`` re-anchors each body
to this machine's counter and to the present, so that a reader here gets the time from it.

The file is read in worker threads, some hundred records at a time.
"""

from pathlib import Path
from typing import ClassVar, Final, Literal, Self, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vmclock_async.errors import RecordingError
from vmclock_async.models import BodyUpdate
from vmclock_async.recording import Moment, Record, RecordingReader
from vmclock_async.sources import Emit, Progress
from vmclock_replay.live import Anchor

__all__ = ("ReplaySettings", "ReplaySource")

_LARGEST_COUNTED: Final = 32 * 2**20
"""Largest recording, in bytes of text, whose records are counted before the replay; only progress() needs the count."""
_PAUSE_OF_ONE_RECORD_NS: Final = 10**9


@final
class ReplaySettings(BaseModel):
    """Options of the replay source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(description="the recording, JSON Lines, plain or gzip")
    mode: Literal["recorded", "live"] = Field(
        "recorded",
        description="recorded: bit for bit; live: re-anchored to this machine's counter and the present",
    )
    speed: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="times the recorded pace; 0: as fast as it can (recorded only)"
    )
    loop: bool = Field(False, description="start again at the end, for ever (recorded only)")
    start: str | None = Field(
        None, description="where a part begins: a duration since the first record, as 90s, or a time, as in until"
    )
    until: str | None = Field(
        None,
        description="end of the part; its records are earlier: a duration, or a time, as 2026-03-14T15:09:32Z",
    )

    @field_validator("start", "until")
    @classmethod
    def _is_moment(cls, text: str | None) -> str | None:
        _moment(text)
        return text

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        start, until = _moment(self.start), _moment(self.until)
        if start and until and start.is_utc == until.is_utc and until.ns <= start.ns:
            raise ValueError(f"until={until.text} is not later than start={start.text}; exchange them")
        return self

    @model_validator(mode="after")
    def _live_has_one_pace(self) -> Self:
        if self.mode == "live" and (self.speed != 1.0 or self.loop):
            raise ValueError("speed and loop belong to mode=recorded; leave them out with mode=live")
        return self


@final
class ReplaySource:
    """Replays a recording or a part of it, one update a record, then returns. The first record comes at once.

    Raises from ``run``:
        RecordingError: the recording cannot be used, or it has no record in the part, or a record is bad; all records
            before that one are emitted.
        SourceUnavailableError: in live mode, this machine's counter went back; the replay begins again.
    """

    settings_type: ClassVar[type[BaseModel]] = ReplaySettings
    rests_on_system_clock: ClassVar[bool] = True

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._done = 0
        self._total: int | None = None

    def progress(self) -> Progress:
        """Records emitted in this run, and in all (None for a loop and for very large files)."""
        return Progress(self._done, self._total)

    async def run(self, emit: Emit) -> None:
        """Emit every record in file order."""
        self._done, self._total = 0, None
        with await anyio.to_thread.run_sync(_open, self._settings) as reader:
            if not self._settings.loop:
                self._total = await anyio.to_thread.run_sync(_count, self._settings)
            if self._settings.mode == "live":
                await self._run_live(reader, emit)
            else:
                await self._run_recorded(reader, emit)
        part = {name: text for name in ("start", "until") if (text := getattr(self._settings, name)) is not None}
        if part and not self._done:
            where = " and ".join(f"{name}={text}" for name, text in part.items())
            raise RecordingError(reader.path, 0, f"has no record with {where}; see how long the recording is")

    async def _run_recorded(self, reader: RecordingReader, emit: Emit) -> None:
        constants = {"counter_id": reader.header.counter_id, "time_type": reader.header.time_type}
        speed = self._settings.speed
        while True:
            start = anyio.current_time()
            last_ns = step_ns = 0
            pace = _Pace(self._settings)
            while records := await anyio.to_thread.run_sync(reader.read):
                for record in map(pace.since_start, records):
                    if speed:
                        await anyio.sleep_until(start + record.t_ns / 1e9 / speed)
                    await self._emit(emit, BodyUpdate.from_body(record.body, **constants))
                    last_ns, step_ns = record.t_ns, record.t_ns - last_ns
            if not self._settings.loop or not self._done:
                return
            if (
                speed
            ):  # the step from the last record to the first is not recorded, so the last step takes its place
                await anyio.sleep_until(start + (last_ns + (step_ns or _PAUSE_OF_ONE_RECORD_NS)) / 1e9 / speed)
            await anyio.to_thread.run_sync(reader.rewind)

    async def _run_live(self, reader: RecordingReader, emit: Emit) -> None:
        anchor = await Anchor.drop(reader.header)
        start = anyio.current_time()
        pace = _Pace(self._settings)
        while records := await anyio.to_thread.run_sync(reader.read):
            for record in map(pace.since_start, records):
                await anyio.sleep_until(start + record.t_ns / 1e9)
                await self._emit(emit, anchor.update(record))

    async def _emit(self, emit: Emit, update: BodyUpdate) -> None:
        await emit(update)
        self._done += 1


@final
class _Pace:
    """The time of records since the first of the part."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._origin_ns = None if settings.start is not None else 0

    def since_start(self, record: Record) -> Record:
        """*record* with its time since the first that was given here; of a whole recording, as it is."""
        if self._origin_ns is None:
            self._origin_ns = record.t_ns
        return record.model_copy(update={"t_ns": record.t_ns - self._origin_ns}) if self._origin_ns else record


def _moment(text: str | None) -> Moment | None:
    return None if text is None else Moment(text)


def _open(settings: ReplaySettings) -> RecordingReader:
    return RecordingReader(settings.path, start=_moment(settings.start), until=_moment(settings.until))


def _count(settings: ReplaySettings) -> int | None:
    """Records to be replayed, or None if counting them would take long, or fails."""
    try:
        with _open(settings) as reader:
            return reader.count(_LARGEST_COUNTED)
    except RecordingError:
        return None  # the replay meets the same error, but after the good records before it
