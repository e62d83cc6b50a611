"""What a clock makes of what becomes of its segment: replaced, unlinked, begun again, left in mid-commit."""

import os
import shutil
import subprocess
import time
from dataclasses import asdict, replace

import pytest

from kit import exact_time
from kit.calls import builtin_calls
from kit.earlier_boot import age_by_a_boot, forget_boot
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.readings import readings
from kit.told_world import World, grow_old, open_descriptors
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockStaleError,
    ClockStatus,
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
    SegmentWriter,
    _core,
)
from vmclock_async.timebase import COUNTER_ID


def test_segment_in_anothers_place_with_its_inode_number() -> None:
    """Numbers are a file system's own, and given out again: a replacement is seen by its being another file."""
    mounted = (f"mkdir /mnt/{number}; mount -t tmpfs none /mnt/{number}" for number in (1, 2))
    command = in_own_mounts("mount -t tmpfs none /mnt", *mounted)
    lost, *events = subprocess.check_output([*command, path_of("clock_elsewhere")], text=True).splitlines()
    assert lost.startswith("the lease is over: the segment was replaced")
    assert events == ["SegmentReplaced", "Disrupted"]


@pytest.mark.long
def test_segment_that_was_replaced_is_found(world: World, clock: Clock) -> None:
    """Within a second of the last commit to the old file the clock reads the new one, and before any error is given."""
    readings(clock)
    world.replace(clock_status=ClockStatus.FREERUNNING)
    began = asked = time.monotonic()
    while clock.now().status is ClockStatus.SYNCHRONIZED:
        assert asked < began + 1.1, "asked after a second, it gave the old file's time"
        time.sleep(0.001)  # it leaves the processor to other tests
        asked = time.monotonic()
    assert all(reading.status is ClockStatus.FREERUNNING for reading in readings(clock))


def test_segment_replaced_while_stale_is_found_at_once(world: World, clock: Clock) -> None:
    """A clock that had no bound any more has one as soon as the path leads to a segment with one."""
    world.tell(age_s=2000)
    with pytest.raises(ClockStaleError):
        clock.now()
    world.replace()
    readings(clock)
    world.replace(clock_status=0)
    world.replace()
    readings(clock)


def test_unlinked_segment_is_read_until_it_is_too_old(world: World) -> None:
    """As one whose publisher has ended; what comes after is found."""
    with Clock(world.path, fence=None) as clock, world.path.open("r+b", buffering=0) as page:
        world.remove()
        readings(clock)
        grow_old(page, clock.max_age)
        with pytest.raises(ClockStaleError):
            clock.now()
        world.writer = SegmentWriter(world.path)
        with pytest.raises(ClockStaleError):
            clock.now()  # nothing committed yet
        world.tell()
        readings(clock)


def test_cold_start_in_place_is_no_time_until_its_first_commit(world: World, clock: Clock) -> None:
    """SegmentNotInitializedError, not the old body and not one of zeros."""
    readings(clock)
    world.writer.close()
    age_by_a_boot(world.path)  # the writer begins afresh in the same file
    world.writer = SegmentWriter(world.path, size=112)
    for _ in range(2):
        with pytest.raises(SegmentNotInitializedError, match="version is 0"):
            clock.now()
    world.tell()
    readings(clock)


def asdict_of(body: object) -> dict[str, int]:
    """The fields of *body* that a test's page has too."""
    names = asdict(exact_time.Page()).keys() & type(body).model_fields.keys()  # type: ignore[attr-defined]
    return {name: int(getattr(body, name) or 0) for name in names}


@pytest.mark.parametrize(
    ("header", "error"),
    [({"magic": 7}, SegmentMalformedError), ({"version": 9}, SegmentVersionNotSupportedError)],
)
def test_page_that_becomes_something_else_has_no_time(
    world: World, clock: Clock, header: dict[str, int], error: type[SegmentError]
) -> None:
    """The header is looked at in every reading, those of the core too."""
    readings(clock)
    page = exact_time.Page(counter_id=COUNTER_ID, **asdict_of(world.writer.body))
    with world.path.open("r+b", buffering=0) as file:
        file.write(replace(page, seq_count=8, **header).pack())
        with pytest.raises(error):
            clock.now()


@pytest.mark.parametrize("from_boot_s", [-5, 10**9])
def test_segment_of_an_earlier_boot_has_no_time(world: World, from_boot_s: int) -> None:
    """Its counter began anew since: ClockDisruptedError until a publisher of this boot commits.

    An earlier boot may have been at a later time, where the machine has no clock that runs while it is off.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    forget_boot(world.path)
    os.utime(world.path, (booted + from_boot_s, booted + from_boot_s))
    with Clock(world.path, fence=None) as clock:
        for _ in range(2):
            with pytest.raises(ClockDisruptedError, match=r"before this machine booted, .* wait for a new commit"):
                clock.now()
        with pytest.raises(ClockDisruptedError, match="before this machine booted"):
            clock.at(_core.counter())
        world.restart_publisher()
        world.tell()
        readings(clock)


def test_segment_of_an_earlier_boot_in_anothers_place_has_no_time(world: World, clock: Clock) -> None:
    """The question is asked again of every file that the path comes to lead to."""
    readings(clock)
    old = world.path.with_name("old")
    shutil.copyfile(world.path, old)
    os.utime(old, (1, 1))
    world.tell(age_s=2000)
    old.rename(world.path)
    for _ in range(2):
        with pytest.raises(ClockDisruptedError, match="before this machine booted"):
            clock.now()


def test_commit_that_does_not_end_is_given_up_after_a_millisecond(world: World, clock: Clock) -> None:
    """SegmentUnstableError names the number that stayed odd; the next commit ends it."""
    readings(clock)
    world.stop_in_mid_commit()
    for _ in range(10):
        began = time.perf_counter()
        given_up = pytest.raises(
            SegmentUnstableError,
            match=r"stayed odd at 3 for 0\.5 ms: its writer is at work, or was stopped or died",
        )
        with builtin_calls() as called, given_up as caught:
            clock.now()
        assert time.perf_counter() - began >= 0.0005
        assert caught.value.seq_count == 3
        # It sleeps for a tenth of that between two tries, and no more often, however long others had the processor.
        assert called.count(time.sleep) <= 11
    world.tell()
    readings(clock)


def test_closed_clock_gives_nothing(world: World) -> None:
    """Each use is a SegmentError that says so; closing again is nothing; no descriptor stays."""
    before = open_descriptors()
    with Clock(world.path, fence=world.device) as clock:
        readings(clock)
        stamp = _core.counter()
    clock.close()
    assert not open_descriptors() - before
    for ask in (
        clock.now,
        lambda: clock.now(max_error_ns=1),
        lambda: clock.at(stamp),
        lambda: clock.at_monotonic(0),
        lambda: clock.status,
        lambda: clock.age_ns,
        lambda: clock.incarnation,
    ):
        with pytest.raises(SegmentError, match="closed"):
            ask()


def test_clock_that_is_forgotten_leaves_nothing_open(world: World) -> None:
    """Without close(): the last reference is the end of its descriptors, those of the core included."""
    before = open_descriptors()
    clock = Clock(world.path, fence=world.device)
    clock.now()
    del clock
    assert not open_descriptors() - before
