"""The publisher and times that cannot be true: wrong units, missing fields, another host's counter."""

import logging
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from pydantic import BaseModel

from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Emit,
    Flags,
    InvalidUpdateError,
    Publisher,
    SegmentReader,
    SegmentWriter,
    Snapshot,
    TimeType,
    VMClockBody,
)
from vmclock_async.reckoning import gives_interval
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID, fixed_point_period

MEASURED = (
    *sorted(BodyUpdate.MEASURED_FIELDS - {"counter_period_esterror_rate_frac_sec", "time_esterror_nanosec"}),
)

Script = Callable[[Emit], Awaitable[None]]


class Scripted:
    """A source that does what its script says."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, script: Script) -> None:
        self._script = script

    async def run(self, emit: Emit) -> None:
        await self._script(emit)


def time_fields() -> dict[str, int]:
    """Those of an honest time as it is now."""
    body = make_body()
    header = {"counter_id": COUNTER_ID, "time_type": 0, "clock_status": ClockStatus.SYNCHRONIZED}
    return header | {name: getattr(body, name) for name in MEASURED}


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


def a_page(fields: dict[str, int]) -> BodyUpdate:
    """A device's page that tells the time of *fields*."""
    values = {name: value for name, value in fields.items() if name not in ("counter_id", "time_type")}
    flags = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
    body = VMClockBody.model_validate(values | {"disruption_marker": 7, "flags": flags})
    return BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0)


async def published(path: Path, sources: dict[str, Script]) -> Snapshot:
    """What is there when the scripts of all *sources* are over."""
    with anyio.fail_after(30):
        await Publisher(path, {name: Scripted(script) for name, script in sources.items()}).run()
    with SegmentReader(path) as reader:
        return reader.snapshot()


def saying(*updates: BodyUpdate) -> Script:
    """A script that emits *updates*."""

    async def script(emit: Emit) -> None:
        for update in updates:
            await emit(update, epoch=emit.epoch)

    return script


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
    assert len(complaints) == 1
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
    assert len(complaints) == 1
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


@pytest.mark.anyio
async def test_sole_page_is_relayed_whatever_it_says(segment_path: Path) -> None:
    """A recording of another machine is copied bit for bit, its period too."""
    page = a_page(time_fields() | {"counter_period_frac_sec": 2**62, "time_frac_sec": 7})
    snapshot = await published(segment_path, {"replay": saying(page)})
    assert (snapshot.body.counter_period_frac_sec, snapshot.body.time_frac_sec) == (2**62, 7)
    assert snapshot.counter_id == COUNTER_ID


@pytest.mark.anyio
async def test_marker_that_moved_between_two_runs_is_compared_whole(segment_path: Path) -> None:
    """The second run of a publisher knows which marker of the device the first one saw."""

    class Device(Scripted):
        """A source whose marker can be asked for."""

        marker = 7 + 2**32

        def disruption_marker(self) -> int | None:
            return self.marker

    async def says(emit: Emit) -> None:
        page = VMClockBody(disruption_marker=device.marker)
        await emit(BodyUpdate.from_body(page, counter_id=CounterId.INVALID, time_type=0))

    device = Device(says)
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=7 + 2**32))
    measures = iter([saying(BodyUpdate.model_validate(time_fields())), saying()])

    async def meter(emit: Emit) -> None:
        await next(measures)(emit)

    publisher = Publisher(segment_path, {"device": device, "meter": Scripted(meter)})
    await publisher.run()
    with SegmentReader(segment_path) as reader:
        assert gives_interval(*reader.sample(), counter_id=COUNTER_ID)
    device.marker = 7
    await publisher.run()
    with SegmentReader(segment_path) as reader:
        body = reader.snapshot().body
    assert (body.disruption_marker, body.clock_status) == (7 + 2**33, ClockStatus.UNKNOWN)


@pytest.mark.anyio
@pytest.mark.parametrize("offset_s", [0, -37])
async def test_timescale_outlives_a_commit_that_was_interrupted(offset_s: int, segment_path: Path) -> None:
    """A writer that died in mid-commit, its repair, and the publisher after that: the segment's timescale stays."""
    fields = time_fields()
    tai = fields | {"time_type": TimeType.TAI, "tai_offset_sec": -37, "time_sec": fields["time_sec"] + 37}
    kinds = [BodyUpdate.model_validate(kind) for kind in (fields | {"tai_offset_sec": -37}, tai)]
    first, other = kinds if offset_s == 0 else reversed(kinds)
    began = await published(segment_path, {"meter": saying(first)})
    page = bytearray(segment_path.read_bytes())
    page[0x0C:0x10] = (began.seq_count + 1).to_bytes(4, "little")
    segment_path.write_bytes(page)
    await published(segment_path, {"status": saying(BodyUpdate(clock_status=ClockStatus.INITIALIZING))})
    snapshot = await published(segment_path, {"meter": saying(other)})
    assert snapshot.time_type == began.time_type
    assert gives_interval(snapshot, fields["counter_value"], counter_id=COUNTER_ID)
    assert (snapshot.body.time_sec, snapshot.body.tai_offset_sec) == (began.body.time_sec, -37)
