"""Live mode: a recorded body in terms of this machine's counter and of the present.

A live replay keeps statuses, flags and markers; the steps and slews of the clock from one measurement to the next; and
the bound as it shrank, and grew again while a body was kept. A body that repeats the time of the one before keeps that
one's reference, and its bound grows as it did in the recording. A leap second takes place again, too: after it UTC is
a second behind the present.

A live replay exchanges the counter (value, period, id) and the origin of time. The first recorded time becomes the
present, and so does the first reliable time (SYNCHRONIZED or FREERUNNING, newly measured) after each change of
disruption_marker. When a machine was restored hours after its snapshot, its time jumped by those hours, but the
recorder's monotonic clock did not see them; a replay that kept them would be hours ahead of the present for the rest
of its life. So in a live replay the time stays near the present, and a disruption shows only in its meaning: a marker
that moved, a time that is void, and then time again.

CLOCK_MONOTONIC paces a replay, and a recorder counts by it; so the period comes from it too. A body without a time (no
counter, no period, a timescale that is neither UTC nor TAI) is published with counter_id INVALID, because its counter
values mean nothing here.
"""

import time
from fractions import Fraction
from typing import Final, Self, final

import anyio

from vmclock_async.abi import TELLS_TIME, CounterId, TimeType
from vmclock_async.errors import SourceUnavailableError
from vmclock_async.models import BodyUpdate, VMClockBody
from vmclock_async.reckoning import UNITS_PER_SECOND, reckon
from vmclock_async.recording import Record, RecordingHeader
from vmclock_async.timebase import COUNTER_ID, Pairing, Rate, pair, ticks_between

__all__ = ("Anchor",)

_CALIBRATION_S: Final = 0.02
_U64: Final = 2**64


@final
class Anchor:
    """The place of the recording's beginning on this machine's counter and in its time."""

    def __init__(self, header: RecordingHeader, before: Pairing, start: Pairing) -> None:
        self._header = header
        self._before = before
        self._start = start
        self._marker: int | None = None
        self._shift: int | None = None
        """Units of 2**-64 s from recorded time to the present; None until a time gives it."""
        self._recorded: VMClockBody | None = None
        self._published: VMClockBody | None = None

    @classmethod
    async def drop(cls, header: RecordingHeader) -> Self:
        """Calibrate the counter for 20 ms, and let the recording begin now."""
        before = pair(time.CLOCK_MONOTONIC)
        await anyio.sleep(_CALIBRATION_S)
        return cls(header, before, pair(time.CLOCK_MONOTONIC))

    def update(self, record: Record) -> BodyUpdate:
        """The update that corresponds to *record* at present.

        Raises:
            SourceUnavailableError: this machine's counter went back since the replay began.
        """
        body = record.body
        if body.disruption_marker != self._marker:
            self._marker, self._shift = body.disruption_marker, None
        if not self._has_time(body):
            self._recorded = self._published = None
            return BodyUpdate.from_body(body, counter_id=CounterId.INVALID, time_type=self._header.time_type)
        if self._published is not None and _measured(body) == _measured(self._recorded):
            published = body.model_copy(update=_measured(self._published))
        else:
            published = self._reanchored(body, record)
        self._recorded, self._published = body, published
        return BodyUpdate.from_body(published, counter_id=COUNTER_ID, time_type=self._header.time_type)

    def _has_time(self, body: VMClockBody) -> bool:
        return (
            self._header.counter_id != CounterId.INVALID
            and self._header.time_type in (TimeType.UTC, TimeType.TAI)
            and body.counter_period_frac_sec > 0
        )

    def _reanchored(self, body: VMClockBody, record: Record) -> VMClockBody:
        # The period is measured over the whole time since calibration began: the longer, the better.
        now = pair(time.CLOCK_MONOTONIC)
        elapsed_ns = now.clock_ns - self._before.clock_ns
        ticks = ticks_between(self._before.counter_ticks, now.counter_ticks)
        if not 0 < elapsed_ns < ticks * 10**9:
            raise SourceUnavailableError(
                "replay",
                f"this machine's counter was disrupted ({ticks} ticks in {elapsed_ns} ns): the replay begins again",
            )
        # This is the record's own time on our counter, however late it is published.
        counter = self._start.counter_ticks + record.t_ns * ticks // elapsed_ns
        seen = reckon(body, body.counter_value if record.counter is None else record.counter)
        shift = self._shift
        if shift is None:
            shift = self._present(counter, elapsed_ns, ticks, body) - seen.low
            if body.clock_status in TELLS_TIME:
                self._shift = shift
        # By the modulo, a recorded step out of the ABI's range stays out of every reader's range.
        reference = (seen.low + shift) % (_U64 * UNITS_PER_SECOND)

        # Our own error comes on top of the recorded one: the windows of the pairings, and a tick.
        ns_per_tick = Fraction(elapsed_ns, ticks)
        own_ns = (self._start.window_ticks + now.window_ticks + 1) * ns_per_tick + 1
        own_drift = Fraction(self._before.window_ticks + now.window_ticks, 2 * ticks)
        est_drift = Fraction(body.counter_period_esterror_rate_frac_sec, body.counter_period_frac_sec)
        is_tai = self._header.time_type == TimeType.TAI
        measured = BodyUpdate.measured(
            counter_ticks=counter % _U64,
            utc_ns=Fraction(reference * 10**9, UNITS_PER_SECOND) + is_tai * body.tai_offset_sec * 10**9,
            error_ns=seen.maxerror_ns + own_ns,
            rate=Rate(ns_per_tick, own_drift * ns_per_tick),
            drift=Fraction(body.counter_period_maxerror_rate_frac_sec, body.counter_period_frac_sec),
            est_error_ns=seen.esterror_ns,
            est_error_ns_per_tick=est_drift * ns_per_tick,
            tai_offset_sec=body.tai_offset_sec if is_tai else None,
        )
        # The flags stay the recorded ones: an error that its field cannot hold becomes the largest that it can.
        fields = {name: getattr(measured, name) for name in BodyUpdate.MEASURED_FIELDS}
        return body.model_copy(
            update={name: _U64 - 1 if value is None else value for name, value in fields.items()}
        )

    def _present(self, counter: int, elapsed_ns: int, ticks: int, body: VMClockBody) -> int:
        """CLOCK_REALTIME at *counter* on the recording's timescale, units of 2**-64 s."""
        realtime = pair(time.CLOCK_REALTIME)
        utc_ns = realtime.clock_ns + ticks_between(realtime.counter_ticks, counter) * elapsed_ns // ticks
        offset_s = body.tai_offset_sec if self._header.time_type == TimeType.TAI else 0
        return (utc_ns << 64) // 10**9 - offset_s * UNITS_PER_SECOND


def _measured(body: VMClockBody | None) -> dict[str, int]:
    return {} if body is None else {name: body.__dict__[name] for name in BodyUpdate.MEASURED_FIELDS}
