"""Log records with bounded time and incarnation: of logging and of structlog, and whatever the clock does."""

import io
import json
import logging
import logging.handlers
import os
import queue
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest
import structlog

from vmclock_async import Clock, Snapshot, TimeInterval
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.incarnation import Incarnation
from vmclock_async.stamping import TimeFields, TimeFilter, TimeProcessor, TimeValues
from vmclock_async.testing import ManualClock, PlayedSegment

FIELDS = ("earliest_ns", "latest_ns", "clock_status", "incarnation")
UNBOUNDED = {"earliest_ns": None, "latest_ns": None}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Those fields that *record* has."""
    return {name: vars(record)[name] for name in FIELDS if name in vars(record)}


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """A clock whose time stands still unless the test moves it."""
    with ManualClock(follow_loop=False) as clock:
        yield clock


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Kept:
    """A handler of nobody's."""
    return Kept()


@pytest.fixture
def log(kept: Kept) -> logging.Logger:
    """A logger that only *kept* hears."""
    log = logging.Logger("program")
    log.addHandler(kept)
    return log


def test_filter_of_a_handler_stamps_what_any_logger_sends(
    clock: ManualClock, kept: Kept, log: logging.Logger
) -> None:
    """The interval is the clock's reading, the status its name, the incarnation its text."""
    kept.addFilter(TimeFilter(clock))
    log.warning("one")
    clock.advance(5)
    log.warning("two")
    one, two = kept.records
    reading, drawn = clock.now(), str(clock.incarnation)
    assert fields_of(two) == {
        "earliest_ns": reading.earliest_ns,
        "latest_ns": reading.latest_ns,
        "clock_status": "SYNCHRONIZED",
        "incarnation": drawn,
    }
    assert TimeInterval(vars(one)["earliest_ns"], vars(one)["latest_ns"], 2).before(reading)
    assert UUID(drawn) == clock.incarnation


def test_filter_of_a_logger_goes_first_and_its_fields_stay(
    clock: ManualClock, kept: Kept, log: logging.Logger
) -> None:
    """The record is stamped where it was made, however late a queue hands it to a handler that stamps as well."""
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    log.addFilter(TimeFilter(clock))
    log.handlers = [logging.handlers.QueueHandler(waiting)]
    log.warning("late")
    made = TimeFields(clock).now()
    clock.advance(100)
    kept.addFilter(TimeFilter(clock))
    kept.handle(waiting.get())
    assert fields_of(kept.records[0]) == made


def test_strings_keep_every_digit_where_numbers_are_doubles(clock: ManualClock) -> None:
    """On request the two times are decimal strings; the other fields are strings anyway."""
    numbers, strings = TimeFields(clock).now(), TimeFields(clock, strings=True).now()
    assert strings == {
        **numbers,
        "earliest_ns": str(numbers["earliest_ns"]),
        "latest_ns": str(numbers["latest_ns"]),
    }
    assert float(str(numbers["earliest_ns"])) != numbers["earliest_ns"]


def grow_old(clock: ManualClock) -> None:
    clock.freeze()
    clock.advance(1001)


WITHOUT_TIME: dict[str, tuple[Callable[[ManualClock], None], str]] = {
    "void": (lambda clock: clock.lose_sync(void=True), "ClockNotSynchronizedError"),
    "old": (grow_old, "ClockStaleError"),
    "torn": (lambda clock: clock.die_mid_commit(), "SegmentUnstableError"),
    "closed": (lambda clock: clock.close(), "SegmentError"),
}


@pytest.mark.parametrize("case", WITHOUT_TIME)
def test_record_says_why_it_has_no_time(clock: ManualClock, kept: Kept, log: logging.Logger, case: str) -> None:
    """The record comes all the same, with the class of the error that now() raises."""
    happen, error = WITHOUT_TIME[case]
    kept.addFilter(TimeFilter(clock))
    happen(clock)
    log.warning("still here")
    said = fields_of(kept.records[0])
    known = said.pop("incarnation") is not None
    assert said == {**UNBOUNDED, "clock_status": error}
    assert known == (case in ("void", "old"))


def test_clock_of_ones_own_cannot_lose_a_record(kept: Kept, log: logging.Logger) -> None:
    """Whatever a derived clock raises becomes the status."""

    class Broken:
        def now(self) -> None:
            raise ZeroDivisionError

        @property
        def incarnation(self) -> UUID:
            raise ZeroDivisionError

    kept.addFilter(TimeFilter(Broken()))  # type: ignore[arg-type]
    log.warning("still here")
    assert fields_of(kept.records[0]) == {**UNBOUNDED, "clock_status": "ZeroDivisionError", "incarnation": None}


@pytest.mark.anyio
async def test_restore_changes_the_incarnation_of_later_records() -> None:
    """While callbacks run there is none, for anybody but them: they have the new one."""
    with ManualClock() as clock:
        fields, seen = TimeFields(clock), dict[str, TimeValues]()
        arrived, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

        async def callback(_: Snapshot) -> None:
            seen["callback"] = fields.now()
            arrived.set()
            await go_on.wait()
            done.set()

        with anyio.fail_after(5):
            async with clock.on_restore(callback):
                before = fields.now()["incarnation"]
                clock.restore()
                await arrived.wait()
                assert fields.now()["incarnation"] is None
                go_on.set()
                await done.wait()
                await anyio.wait_all_tasks_blocked()
                after = fields.now()["incarnation"]
    assert seen["callback"]["incarnation"] == after
    assert after not in (None, before)


def test_real_clock_of_a_segment_and_its_forked_child(segment: PlayedSegment) -> None:
    """The child's records have the time, and an incarnation of its own."""
    with Clock(segment.path, fence=None) as clock:
        fields = TimeFields(clock)
        in_parent = fields.now()
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write_fd, json.dumps(fields.now()).encode())
            finally:
                os._exit(0)
        os.close(write_fd)
        os.waitpid(pid, 0)
        with open(read_fd) as pipe:
            in_child: TimeValues = json.loads(pipe.read())
        assert in_child["clock_status"] == in_parent["clock_status"] == "SYNCHRONIZED"
        assert int(in_child["latest_ns"] or 0) > int(in_parent["earliest_ns"] or 0) > 0
        assert UUID(in_child["incarnation"]) != UUID(in_parent["incarnation"])
        assert fields.now()["incarnation"] == in_parent["incarnation"]


def test_warning_of_the_clock_itself_is_stamped(kept: Kept) -> None:
    """The clock logs, once, that restores are not seen. To stamp that record the clock is asked again, and answers."""
    log = logging.getLogger("vmclock_async.clock")
    kept.addFilter(TimeFilter(clock := ManualClock(has_device=False, follow_loop=False)))
    log.addHandler(kept)
    try:
        clock.change(vm_generation_counter=None, disruption_marker=0)
        kept.handle(logging.makeLogRecord({"msg": "first"}))
    finally:
        log.removeHandler(kept)
        clock.close()
    warning, first = kept.records
    assert "keeps the incarnation of its original" in warning.getMessage()
    assert fields_of(warning)["incarnation"] == fields_of(first)["incarnation"]


def test_signal_handler_may_log_while_an_incarnation_is_drawn() -> None:
    """Both get the same one; the handler does not wait for the code that it interrupts."""
    told: list[UUID] = []

    with ManualClock(follow_loop=False) as clock:
        snapshot = clock.snapshot()

        def gather(generation: int | None, marker: int) -> Ingredients:
            if not told:
                told.append(UUID(int=0))
                told[0] = incarnation.of(snapshot, 1)  # what the handler does, in the middle of the draw
            return Ingredients.gather(generation, marker)

        incarnation = Incarnation(gather=gather)
        assert incarnation.of(snapshot, 1) == told[0] == incarnation.of(snapshot, 1)


def test_signal_handler_gets_no_incarnation_of_the_life_before() -> None:
    """After a restore neither the handler nor a second attempt, where the first could not draw, gets the old one."""
    told: list[UUID] = []

    with ManualClock(follow_loop=False) as clock:
        snapshot = clock.snapshot()

        def gather(generation: int | None, marker: int) -> Ingredients:
            if generation == 2 and not told:
                told.append(UUID(int=0))
                told[0] = incarnation.of(snapshot, 2)
            if generation == 3 and len(told) == 1:
                told.append(UUID(int=0))
                raise OSError("no more descriptors")
            return Ingredients.gather(generation, marker)

        incarnation = Incarnation(gather=gather)
        before = incarnation.of(snapshot, 1)
        second = incarnation.of(snapshot, 2)
        assert told[0] == second != before
        with pytest.raises(OSError, match="no more descriptors"):
            incarnation.of(snapshot, 3)
        assert incarnation.of(snapshot, 3) != second


def test_processor_of_structlog_adds_the_fields(clock: ManualClock) -> None:
    """Beside other processors, with structlog's renderer of JSON."""
    out = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.add_log_level, TimeProcessor(clock), structlog.processors.JSONRenderer()],
    )
    log.info("paid", amount=7)
    log.info("paid before", **TimeFields(clock).now() | {"clock_status": "kept"})
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == {"event": "paid", "amount": 7, "level": "info", **TimeFields(clock).now()}
    assert second["clock_status"] == "kept"


def test_processor_of_structlog_passes_events_of_clocks_without_time(clock: ManualClock) -> None:
    """As with the filter: the fields say why."""
    clock.lose_sync(void=True)
    event = TimeProcessor(clock, strings=True)(None, "info", {"event": "paid"})
    assert event == {
        "event": "paid",
        **UNBOUNDED,
        "clock_status": "ClockNotSynchronizedError",
        "incarnation": str(clock.incarnation),
    }
