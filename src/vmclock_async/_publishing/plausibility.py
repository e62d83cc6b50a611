"""Checks that a source's time can be true: complete, in the ABI's units, and in this machine's counter.

A reader cannot tell a wrong unit from a right one: nanoseconds in ``time_frac_sec`` are a fraction of nearly zero,
and a period of 2e-19 s is a clock that stands still; both come with a small bound. These checks find them:

* The period is compared with the counter's own rate by CLOCK_MONOTONIC_RAW, which nothing steers. It may differ by
  ``TOLERANCE_PPM``, by the error of that measurement, and by the maximum period error that the update itself states,
  because a clock that is being slewed has its own period.
* A fraction of the second below 2**32 units is less than a quarter of a nanosecond. A source that measures correctly
  sends one once in four thousand million measurements; a source that sends nanoseconds, microseconds or NTP's 32-bit
  fractions sends nothing else. So the first fraction of a source that is not zero shows its unit.
* No clock goes beyond 2262, where signed 64-bit nanoseconds end.
* A time needs counter_value, counter_period_frac_sec, time_sec and clock_status, or no reader gets a time from it.

A time in another machine's counter is not compared with this machine's.
"""

import time
from collections.abc import Callable
from functools import cache
from math import ldexp
from typing import Final, NamedTuple, final

from vmclock_async.abi import BODY_FIELDS, TELLS_TIME, ClockStatus, CounterId
from vmclock_async.models import BodyUpdate, VMClockBody
from vmclock_async.timebase import COUNTER_ID, Calibration

__all__ = ("TOLERANCE_PPM", "CounterRate", "Objection", "Plausibility", "without_time")

TOLERANCE_PPM: Final = 1000
"""The kernel lets no program correct its clock by more than 500 ppm, so RAW is at least as good as that."""

_INVALID: Final = CounterId.INVALID
_NEEDED: Final = ("counter_value", "counter_period_frac_sec", "time_sec", "clock_status")
_MEASURED: Final = frozenset({"counter_value", "counter_period_frac_sec", "time_sec"})
_CLAIMS: Final = frozenset({"counter_period_frac_sec", "clock_status"})
_WATCHED: Final = frozenset(
    {
        *_NEEDED,
        "counter_id",
        "counter_period_shift",
        "counter_period_maxerror_rate_frac_sec",
        "time_frac_sec",
    }
)
_TIME: Final = BodyUpdate.MEASURED_FIELDS | {"clock_status"}
_LATEST_S: Final = 2**63 // 10**9
_SMALLEST_FRACTION: Final = 2**32
_WRONG_UNIT: Final = 2.0
"""A period that is wrong by this factor was computed wrongly. If it is less, the machine may be on another host now."""
_MOST_STATED: Final = 0.2
"""The largest stated error that counts, as a part of the period: no clock is slewed by more than a tenth."""
_BASELINE_NS: Final = 1_000_000
_SETTLED: Final = 1e-4
"""Relative error of the counter's rate that needs no longer baseline."""
_TRUSTED_NS: Final = 10**9


class Objection(NamedTuple):
    """The reason why the time of an update cannot be true."""

    describe: Callable[[], str]
    """Gives `reason`; it is called late, because the words cost more than the check."""
    is_fault: bool
    """Whether only the source's own code can be the cause; if not, the cause may be outside."""
    is_harmless: bool = False
    """Whether readers get no time from the update as it stands."""

    @property
    def reason(self) -> str:
        """The value that was sent and the one that was expected, in words."""
        return self.describe()


@final
class Plausibility:
    """Keeps the time that one source has given since its first update, and judges whether it can be true."""

    def __init__(self, counter_rate: "CounterRate | None" = None) -> None:
        self._told: dict[str, int | None] = {"counter_id": COUNTER_ID}
        self._is_complete = self._unit_is_shown = False
        self._judged: tuple[int, ...] = ()
        """The period that was judged last: fraction, shift, stated error, and time of the measurement used."""
        self._period_objection: Objection | None = None
        """The objection to that period."""
        self._rate: Final = counter_rate or _counter_rate()

    def objection(self, update: BodyUpdate) -> Objection | None:
        """The objection to the time of this source after *update*; None where it can be true, or where there is none.

        *update* is valid. The call takes a few microseconds, once a millisecond has passed since the first
        ``Plausibility`` was made. It may block for a millisecond before that, and once a second where the period is
        wrong.
        """
        told, values = self._told, update.__dict__
        spoken = _WATCHED & update.__pydantic_fields_set__
        if not spoken:
            return None
        if told["counter_id"] == _INVALID and not spoken.isdisjoint(_MEASURED):
            told["counter_id"] = COUNTER_ID  # to measure is to say that the counter is fit
        for name in spoken:
            told[name] = values[name]
        if told["counter_id"] == _INVALID or told.get("clock_status", TELLS_TIME[0]) not in TELLS_TIME:
            return None
        if not self._is_complete and (lack := self._incompleteness()):
            return lack
        if not self._unit_is_shown and (wrong := self._wrong_fraction()):
            return wrong
        return self._wrong_period() or self._wrong_second()

    def _incompleteness(self) -> Objection | None:
        told = self._told
        if "time_sec" not in told and "counter_period_frac_sec" not in told:
            return None
        missing = [name for name in _NEEDED if name not in told]
        if not missing:
            self._is_complete = True  # and it stays so, because a source need not repeat a field
            return None
        return Objection(
            lambda: (
                f"sent a time without {' and '.join(missing)}, which no reader can use; expected counter_value, "
                "counter_period_frac_sec with its counter_period_shift, time_sec, time_frac_sec and clock_status"
            ),
            is_fault=not _CLAIMS.isdisjoint(told),
            is_harmless=True,
        )

    def _wrong_fraction(self) -> Objection | None:
        fraction = self._told.get("time_frac_sec")
        if not fraction:
            return None
        if fraction >= _SMALLEST_FRACTION:
            self._unit_is_shown = True
            return None
        return Objection(
            lambda: (
                f"sent time_frac_sec {fraction}, which is {fraction * 1e9 / 2**64:.1g} ns; expected units of 2**-64 s, "
                f"{2**64 // 10**9} to a nanosecond: is it in nanoseconds?"
            ),
            is_fault=True,
        )

    def _wrong_period(self) -> Objection | None:
        told = self._told
        frac_sec = told.get("counter_period_frac_sec")
        if told["counter_id"] != COUNTER_ID or frac_sec is None:
            return None
        shift = told.get("counter_period_shift") or 0
        stated = told.get("counter_period_maxerror_rate_frac_sec") or 0
        # Many sources repeat a period, and it is not judged again.
        judged = frac_sec, shift, stated, self._rate.measured_ns
        if judged != self._judged or self._rate.is_in_doubt(agrees=self._period_objection is None):
            self._period_objection = self._judge_period(frac_sec, shift, stated)
            self._judged = frac_sec, shift, stated, self._rate.measured_ns
        return self._period_objection

    def _judge_period(self, frac_sec: int, shift: int, stated: int) -> Objection | None:
        period_s = ldexp(frac_sec, -64 - shift)
        stated_s = ldexp(stated, -64 - shift)
        expected_s = self._rate.other_than(period_s, stated_s)
        if expected_s is None:
            return None
        return Objection(
            lambda: (
                f"sent counter_period_frac_sec {frac_sec} with shift {shift}, a period of {period_s:.6g} s; expected "
                f"about {round(ldexp(expected_s, 64 + shift))}, {expected_s:.6g} s, as this machine's counter goes by "
                f"CLOCK_MONOTONIC_RAW (to {TOLERANCE_PPM} ppm and what it states): is the unit 2**-(64 + shift) s?"
            ),
            is_fault=not expected_s / _WRONG_UNIT < period_s < expected_s * _WRONG_UNIT,
        )

    def _wrong_second(self) -> Objection | None:
        seconds = self._told.get("time_sec")
        if seconds is None or seconds <= _LATEST_S:
            return None
        return Objection(
            lambda: f"sent time_sec {seconds}, which is after the year 2262; expected seconds since 1970",
            is_fault=False,  # a clock may have been set to it
            is_harmless=True,
        )


def without_time(update: BodyUpdate) -> BodyUpdate:
    """*update* without its time: with a counter that is not fit, or as a page that tells no time."""
    if update.verbatim:
        values = {name: update.__dict__[name] for name in BODY_FIELDS}
        values |= dict.fromkeys(BodyUpdate.MEASURED_FIELDS, 0) | {"clock_status": ClockStatus.UNKNOWN}
        body = VMClockBody.model_validate(values)
        return BodyUpdate.from_body(body, counter_id=CounterId.INVALID, time_type=update.time_type)
    return update.without(_TIME, counter_id=CounterId.INVALID)


@final
class CounterRate:
    """Seconds that a tick of this machine's counter takes by CLOCK_MONOTONIC_RAW, as far as they are known.

    Args:
        calibration: begins to measure the counter's rate.
        now_ns: gives CLOCK_MONOTONIC, nanoseconds.
    """

    def __init__(
        self,
        *,
        calibration: Callable[[], Calibration] = Calibration,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._new_calibration: Final = calibration
        self._now_ns: Final = now_ns
        self._begin()

    def _begin(self) -> None:
        self._calibration = self._new_calibration()
        self._began_ns = self.measured_ns = self._now_ns()
        """Time of the last measurement of the period."""
        self._period_s = self._error_s = 0.0
        self._is_settled = False

    def other_than(self, period_s: float, stated_s: float) -> float | None:
        """The counter's period, if *period_s*, give or take *stated_s*, differs; None: it agrees, or none is known.

        Before it reports a difference, it repeats an old measurement, because the machine may have moved to a host
        whose counter goes at another rate.
        """
        if not self._is_settled:
            self._measure()
        if self._agrees_with(period_s, stated_s):
            return None
        if self._is_old():
            self._begin()
            self._measure()
            if self._agrees_with(period_s, stated_s):
                return None
        return self._period_s

    def is_in_doubt(self, *, agrees: bool) -> bool:
        """Whether to judge a period again; *agrees*: whether it agreed with the counter's."""
        return not self._is_settled or (not agrees and self._is_old())

    def _is_old(self) -> bool:
        return self._now_ns() - self.measured_ns > _TRUSTED_NS

    def _agrees_with(self, period_s: float, stated_s: float) -> bool:
        stated_s = min(stated_s, self._period_s * _MOST_STATED)
        allowed_s = self._period_s * TOLERANCE_PPM / 1e6 + self._error_s + stated_s
        return not self._period_s or abs(period_s - self._period_s) <= allowed_s

    def _measure(self) -> None:
        while (now_ns := self._now_ns()) - self._began_ns < _BASELINE_NS:
            pass
        try:
            rate = self._calibration.rate()
        except ValueError:  # the counter was set back, or its clock stands still: nothing is known
            self._begin()
            return
        self.measured_ns = now_ns
        self._period_s = float(rate.ns_per_tick) / 1e9
        self._error_s = float(rate.error) / 1e9
        self._is_settled = self._error_s < self._period_s * _SETTLED


@cache
def _counter_rate() -> CounterRate:
    """The rate that this process shares; its baseline begins with the first call."""
    return CounterRate()
