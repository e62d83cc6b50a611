"""What a publisher makes of times that cannot be true: wrong units, missing fields, another host's counter."""

import logging
from fractions import Fraction
from pathlib import Path

import anyio
import pytest

from kit.publishing import a_page, published, time_fields
from kit.sources import saying
from vmclock_async import BodyUpdate, ClockStatus, CounterId, Emit, Flags, InvalidUpdateError, SegmentReader
from vmclock_async.reckoning import gives_interval
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID, fixed_point_period


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        pytest.param({"counter_period_frac_sec": 4, "counter_period_shift": 0}, "2.1684e-19 s", id="2e-19 s"),
        pytest.param({"counter_period_frac_sec": 0}, "a period of 0 s", id="no period"),
        pytest.param({"counter_period_shift": 0}, "is the unit 2", id="a forgotten shift"),
        pytest.param({"time_frac_sec": 123_456_789}, "time_frac_sec 123456789", id="nanoseconds"),
        pytest.param({"time_frac_sec": 123_456}, "18446744073 to a nanosecond", id="microseconds"),
    ],
)
async def test_wrong_unit_ends_the_run_and_says_what_was_expected(
    wrong: dict[str, int], expected: str, segment_path: Path
) -> None:
    """No reader is given an interval from it; the error names the source, what it sent and what was expected."""
    update = BodyUpdate.model_validate(time_fields() | wrong)
    with pytest.raises(InvalidUpdateError, match="expected") as caught:
        await published(segment_path, {"meter": saying(BodyUpdate(disruption_marker=1), update)})
    assert caught.value.source == "meter"
    assert expected in str(caught.value)
    with SegmentReader(segment_path) as reader:
        snapshot, counter = reader.sample()
    assert snapshot.body.disruption_marker == 1
    assert not gives_interval(snapshot, counter, counter_id=COUNTER_ID)


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["counter_value", "counter_period_frac_sec", "time_sec", "clock_status"])
async def test_incomplete_time_ends_the_run_and_says_what_is_missing(missing: str, segment_path: Path) -> None:
    """A time without one of these was taken without a word, and nobody ever got it."""
    fields = time_fields()
    del fields[missing]
    with pytest.raises(
        InvalidUpdateError, match=f"meter: sent a time without {missing}, .*expected counter_value"
    ):
        await published(segment_path, {"meter": saying(BodyUpdate.model_validate(fields))})


@pytest.mark.anyio
async def test_reference_alone_is_complained_of_once(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A time that claims nothing ends nothing; that it is of no use is said once, not with each update."""
    updates = [BodyUpdate(counter_value=number, time_sec=number) for number in range(1, 20)]
    snapshot = await published(segment_path, {"meter": saying(*updates)})
    assert snapshot.body.time_sec == 19
    complaints = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(complaints) == 2  # the second when the run ends
    assert "(18 times in " in complaints[1]
    assert "meter sent a time without counter_period_frac_sec and clock_status" in complaints[0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"counter_period_frac_sec": 4, "counter_period_shift": 0}, id="2e-19 s"),
        pytest.param({"time_frac_sec": 999_999_999}, id="nanoseconds"),
        pytest.param(
            {"clock_status": 3, "counter_period_frac_sec": 2**63, "counter_period_shift": 63}, id="shift"
        ),
    ],
)
async def test_nonsense_on_a_page_hides_nothing_and_ends_nothing(
    wrong: dict[str, int], segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A page is from outside: its marker is published, its time is not, another's is, and the log says so once."""
    nonsense = a_page(time_fields() | wrong)
    good = time_fields()
    at_end = anyio.Event()

    async def device(emit: Emit) -> None:
        for _ in range(5):
            await emit(nonsense)
        at_end.set()

    async def clock(emit: Emit) -> None:
        await at_end.wait()
        await emit(BodyUpdate.model_validate(good), epoch=emit.epoch)

    snapshot = await published(segment_path, {"device": device, "clock": clock})
    assert snapshot.body.disruption_marker == 7
    assert (snapshot.counter_id, snapshot.body.time_sec) == (COUNTER_ID, good["time_sec"])
    assert gives_interval(snapshot, good["counter_value"], counter_id=COUNTER_ID)
    complaints = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(complaints) == 2  # the second when the run ends
    assert "(4 times in " in complaints[1]
    assert complaints[0].startswith("device sent ")
    assert "expected" in complaints[0]


@pytest.mark.anyio
async def test_page_that_turns_to_nonsense_takes_its_time_back(segment_path: Path) -> None:
    """What the page told before is not kept beside what it tells now."""
    fields = time_fields()
    nonsense = a_page(fields | {"counter_period_frac_sec": 1})
    other = BodyUpdate(flags=Flags(0))
    snapshot = await published(segment_path, {"device": saying(a_page(fields), nonsense), "other": saying(other)})
    assert snapshot.body.clock_status == ClockStatus.UNKNOWN
    assert snapshot.body.disruption_marker == 7


def other_period(numerator: int, denominator: int) -> dict[str, int]:
    """A period that is this machine's times a factor."""
    body = make_body()
    ns = Fraction(
        body.counter_period_frac_sec * 10**9 * numerator, denominator * 2 ** (64 + body.counter_period_shift)
    )
    period = fixed_point_period(ns.numerator, ns.denominator)
    return {
        "counter_period_frac_sec": period.frac_sec,
        "counter_period_shift": period.shift,
        "counter_period_maxerror_rate_frac_sec": period.frac_sec // 20_000,
    }


@pytest.mark.anyio
@pytest.mark.parametrize(("numerator", "denominator"), [(5, 4), (1_002_000, 10**6)])
async def test_period_of_another_host_is_not_published_and_ends_nothing(
    numerator: int, denominator: int, segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that moved may go by another counter: its time is void until the source has measured that one."""
    fields = time_fields()
    wrong = BodyUpdate.model_validate(fields | other_period(numerator, denominator))
    right = BodyUpdate.model_validate(fields)
    snapshot = await published(segment_path, {"meter": saying(right, wrong)})
    assert (snapshot.counter_id, snapshot.body.clock_status) == (CounterId.INVALID, ClockStatus.UNKNOWN)
    assert "meter sent counter_period_frac_sec" in caplog.text
    snapshot = await published(segment_path, {"meter": saying(right, wrong, right)})
    assert snapshot.counter_id == COUNTER_ID
    assert gives_interval(snapshot, fields["counter_value"], counter_id=COUNTER_ID)
