"""The device's marker, for which the committer asks right before each commit."""

from pathlib import Path

import anyio
import pytest

from kit.publishing import publish, time_fields, until
from kit.sources import Device, Scripted, measured, saying
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Emit,
    Flags,
    Publisher,
    SegmentReader,
    SegmentWriter,
    SourceError,
    VMClockBody,
)
from vmclock_async.reckoning import gives_interval
from vmclock_async.timebase import COUNTER_ID

BOUND_FLAGS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID


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


@pytest.mark.long
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
async def test_marker_that_cannot_be_asked_for_names_the_source(segment_path: Path) -> None:
    """Whatever a plugin's disruption_marker() raises ends the run with one error that names it."""

    class Broken(Device):
        def disruption_marker(self) -> int | None:
            raise LookupError("no page")

    async def script(emit: Emit) -> None:
        await emit(measured())

    with pytest.raises(SourceError, match=r"broken: disruption_marker\(\) failed with LookupError: no page"):
        await Publisher(segment_path, {"broken": Broken(), "clock": Scripted(script)}).run()


async def sleep(emit: Emit) -> None:
    await anyio.sleep_forever()


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
