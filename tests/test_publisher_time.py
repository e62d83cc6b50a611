"""The publisher on this machine's own counter: several sources of a real time, and what becomes of it."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

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
    SourceError,
    TimeType,
    VMClockBody,
)
from vmclock_async.reckoning import bounds_at
from vmclock_async.sources import Source
from vmclock_async.timebase import COUNTER_ID, Calibration, counter_ticks, fixed_point_period

BOUND_FLAGS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
CALIBRATION = Calibration()

Script = Callable[[Emit], Awaitable[None]]


class Settings(BaseModel):
    """No options."""


class Scripted:
    """A source that does what its script says."""

    settings_type: ClassVar[type[BaseModel]] = Settings

    def __init__(self, script: Script) -> None:
        self._script = script

    async def run(self, emit: Emit) -> None:
        await self._script(emit)


class Device(Scripted):
    """A source whose marker can be asked for; emits it once, and then says nothing any more."""

    def __init__(self, marker: int = 7) -> None:
        async def script(emit: Emit) -> None:
            page = VMClockBody(disruption_marker=self.marker)
            await emit(BodyUpdate.from_body(page, counter_id=CounterId.INVALID, time_type=TimeType.UTC))
            await anyio.sleep_forever()

        super().__init__(script)
        self.marker = marker

    def disruption_marker(self) -> int | None:
        return self.marker


def measured(*, age_ns: int = 0, error_ns: int = 10**6) -> BodyUpdate:
    """CLOCK_REALTIME as it was *age_ns* ago."""
    counter, now_ns = counter_ticks(), time.time_ns()
    rate = CALIBRATION.rate().ns_per_tick
    period = fixed_point_period(rate.numerator, rate.denominator)
    sec, ns = divmod(now_ns - age_ns, 10**9)
    return BodyUpdate(
        counter_id=COUNTER_ID,
        time_type=TimeType.UTC,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=counter - int(age_ns / rate),
        counter_period_shift=period.shift,
        counter_period_frac_sec=period.frac_sec,
        counter_period_maxerror_rate_frac_sec=period.frac_sec // 10_000,
        time_sec=sec,
        time_frac_sec=(ns << 64) // 10**9,
        time_maxerror_nanosec=error_ns,
    )


async def publish(
    path: Path, sources: dict[str, Source], meanwhile: Callable[[Publisher], Awaitable[None]]
) -> None:
    """Run a publisher for as long as *meanwhile* takes, ten seconds at most."""
    publisher = Publisher(path, sources)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await meanwhile(publisher)
            tasks.cancel_scope.cancel()


async def until(path: Path, status: ClockStatus) -> VMClockBody:
    """The first body with *status* that a reader sees; there is a segment already."""
    with SegmentReader(path) as reader:
        snapshot = reader.snapshot()
        while snapshot.body.clock_status != status:
            snapshot = await reader.wait_changed(snapshot)
        return snapshot.body


@pytest.fixture
def void_segment(segment_path: Path) -> Path:
    """A segment that says nothing but that its marker is 7."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=7))
    return segment_path


@pytest.mark.anyio
async def test_marker_that_moves_before_a_commit_is_in_it(void_segment: Path) -> None:
    """The device has changed, and has not said so yet: the measurement's own commit carries marker and void."""
    device = Device()
    seen: list[VMClockBody] = []

    async def script(emit: Emit) -> None:
        await emit(measured(), epoch=emit.epoch)
        epoch = emit.epoch
        seen.append(await until(void_segment, ClockStatus.SYNCHRONIZED))
        device.marker = 8
        await emit(measured(), epoch=epoch)  # of before, as far as the source knows
        seen.append(await until(void_segment, ClockStatus.UNKNOWN))
        assert emit.epoch == epoch + 1
        await emit(measured(), epoch=emit.epoch)
        seen.append(await until(void_segment, ClockStatus.SYNCHRONIZED))
        done.set()
        await anyio.sleep_forever()

    done = anyio.Event()

    async def meanwhile(publisher: Publisher) -> None:
        await done.wait()
        statistics = publisher.statistics()
        assert statistics.groups == {"disruption": "device", "time": "clock", "calendar": None}
        assert statistics.sources["clock"].dropped == 1
        assert statistics.sources["clock"].updates == 3

    await publish(void_segment, {"device": device, "clock": Scripted(script)}, meanwhile)
    assert [body.disruption_marker for body in seen] == [7, 8, 8]
    assert [bool(body.flags & BOUND_FLAGS) for body in seen] == [True, False, True]


@pytest.mark.anyio
async def test_marker_is_looked_at_while_nothing_is_said(void_segment: Path) -> None:
    """A source of time that has gone quiet does not keep a disruption from being published within a second."""
    device = Device()

    async def script(emit: Emit) -> None:
        await emit(measured(), epoch=emit.epoch)
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        await until(void_segment, ClockStatus.SYNCHRONIZED)
        device.marker = 9
        body = await until(void_segment, ClockStatus.UNKNOWN)
        assert (body.disruption_marker, body.flags) == (9, Flags(0))

    await publish(void_segment, {"device": device, "clock": Scripted(script)}, meanwhile)


@pytest.mark.anyio
async def test_quiet_source_is_told_without_an_update(void_segment: Path) -> None:
    """A measurement turns five seconds old while nobody says anything: FREERUNNING, and the same reference."""

    update = measured(age_ns=4_800_000_000)

    async def script(emit: Emit) -> None:
        await emit(update)
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        after = await until(void_segment, ClockStatus.FREERUNNING)
        for name in ("counter_value", "time_sec", "time_frac_sec", "time_maxerror_nanosec"):
            assert getattr(after, name) == getattr(update, name)
        assert publisher.statistics().sources["clock"].updates == 1

    await publish(void_segment, {"clock": Scripted(script)}, meanwhile)


@pytest.mark.anyio
async def test_clean_stop_leaves_a_time_that_runs_free(void_segment: Path) -> None:
    """Cancelled, the publisher turns SYNCHRONIZED into FREERUNNING; readers keep an interval that holds."""

    async def script(emit: Emit) -> None:
        await emit(measured())
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        await until(void_segment, ClockStatus.SYNCHRONIZED)

    await publish(void_segment, {"clock": Scripted(script)}, meanwhile)
    with SegmentReader(void_segment) as reader:
        assert reader.snapshot().body.clock_status == ClockStatus.FREERUNNING
        before = time.time_ns()
        snapshot, counter = reader.sample()
        bounds = bounds_at(snapshot, counter, counter_id=COUNTER_ID)
        assert bounds.earliest_ns <= time.time_ns()
        assert before <= bounds.latest_ns


@pytest.mark.anyio
async def test_of_several_sources_what_changes_nothing_is_no_commit(void_segment: Path) -> None:
    """Readers are not woken for a measurement that is not the one published."""

    async def quiet(emit: Emit) -> None:
        for _ in range(10):
            await emit(measured(error_ns=10**7))
        told.set()

    async def chosen(emit: Emit) -> None:
        await emit(measured())
        await first.wait()

    first, told = anyio.Event(), anyio.Event()
    commits: list[int] = []

    async def meanwhile(publisher: Publisher) -> None:
        await until(void_segment, ClockStatus.SYNCHRONIZED)
        await told.wait()
        commits.append(publisher.statistics().commits)
        first.set()

    await publish(void_segment, {"chosen": Scripted(chosen), "quiet": Scripted(quiet)}, meanwhile)
    assert commits[0] <= 2


@pytest.mark.anyio
async def test_marker_that_cannot_be_asked_for_names_the_source(segment_path: Path) -> None:
    """Whatever a plugin's disruption_marker() raises ends the run with one error that names it."""

    class Broken(Device):
        def disruption_marker(self) -> int | None:
            raise LookupError("no page")

    async def script(emit: Emit) -> None:
        await emit(measured())

    with pytest.raises(SourceError, match=r"broken: disruption_marker\(\) failed with LookupError: no page"):
        await Publisher(segment_path, {"broken": Broken(), "clock": Scripted(script)}).run()


@pytest.mark.anyio
@pytest.mark.parametrize("marker", ["8", -1, 2**64, True, 7.0])
async def test_marker_that_is_none_names_the_source(marker: object, segment_path: Path) -> None:
    """Whatever it is, it is not published, and the error is the source's."""

    class Confused(Device):
        def disruption_marker(self) -> int | None:
            return marker  # type: ignore[return-value]

    device = Confused()
    with pytest.raises(SourceError, match=r"device: disruption_marker\(\) returned .*, not None or an integer"):
        await Publisher(segment_path, {"device": device, "chrony": Scripted(sleep)}).run()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "values", [{"time_maxerror_nanosec": -1}, {"time_sec": 2**64}, {"tai_offset_sec": 40_000}, {"flags": "x"}]
)
@pytest.mark.parametrize("is_validated", [True, False])
async def test_nonsense_after_good_time_leaves_time_that_runs_free(
    values: dict[str, Any], is_validated: bool, void_segment: Path
) -> None:
    """The run ends with one error that names the source, and the last good time is left behind as it should be.

    So it does when the source's own code refuses its values, and when they are refused only on their way to the page.
    """

    async def script(emit: Emit) -> None:
        update = measured()
        await emit(update)
        spoken = {name: getattr(update, name) for name in update.model_fields_set}
        await emit(
            update.model_copy(update=values)
            if is_validated
            else BodyUpdate.model_construct(**{**spoken, **values})
        )

    with pytest.raises(InvalidUpdateError, match=next(iter(values))):
        await Publisher(void_segment, {"own": Scripted(script)}).run()
    with SegmentReader(void_segment) as reader:
        body = reader.snapshot().body
    assert body.clock_status == ClockStatus.FREERUNNING
    assert body.flags & Flags.TIME_MAXERROR_VALID


@pytest.mark.anyio
async def test_measurement_without_an_epoch_is_of_the_present_one(void_segment: Path) -> None:
    """A source that forgets to say when it measured is protected as far as can be: from when it hands it over."""
    device = Device()
    handed_over = anyio.Event()

    async def script(emit: Emit) -> None:
        update = measured()
        device.marker = 8
        await emit(update)
        handed_over.set()
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        await handed_over.wait()
        while publisher.statistics().sources["own"].dropped == 0:
            await anyio.sleep(0.01)

    await publish(void_segment, {"device": device, "own": Scripted(script)}, meanwhile)
    with SegmentReader(void_segment) as reader:
        assert reader.snapshot().body.clock_status == ClockStatus.UNKNOWN


@pytest.mark.anyio
async def test_epochs_go_on_in_the_next_run(void_segment: Path) -> None:
    """What ends an epoch between two runs of a publisher is seen by the second: here a marker that moved."""
    device = Device()
    epochs: list[int] = []

    async def script(emit: Emit) -> None:
        while True:
            await emit(measured(), epoch=emit.epoch)
            epochs.append(emit.epoch)
            await anyio.sleep(0.01)

    publisher = Publisher(void_segment, {"device": device, "own": Scripted(script)})
    with anyio.fail_after(10):
        for epoch in (0, 1):
            device.marker = 7 + epoch
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run)
                while epoch not in epochs:
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
    assert set(epochs) == {0, 1}


async def sleep(emit: Emit) -> None:
    await anyio.sleep_forever()
