"""What a clock gives a bound of, and why there is none."""

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kit import exact_time
from kit.calls import builtin_calls
from kit.earlier_boot import age_by_a_boot, forget_boot
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.readings import readings
from kit.told_world import (
    BOUNDED,
    World,
    body_now,
    grow_old,
    open_descriptors,
    true_ns,
)
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockStatus,
    ClockUnboundedError,
    CounterNotSupportedError,
    Flags,
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
    SegmentWriter,
    _core,
)
from vmclock_async.testing import ManualClock
from vmclock_async.timebase import COUNTER_ID

RunScript = Callable[..., str]


StartScript = Callable[..., "subprocess.Popen[str]"]


# What there is a bound of.


@pytest.mark.parametrize("size", [104, 112, 4096])
@pytest.mark.parametrize("status", [ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING])
def test_readings_contain_true_time(segment_path: Path, size: int, status: ClockStatus) -> None:
    """On a segment of ClockBound's size, of ours, and of a whole page: within the bound, and going on."""
    world = World(segment_path, size=size)
    began_ns = true_ns(_core.counter())
    world.tell(clock_status=status, age_s=10)
    with Clock(segment_path, fence=None) as clock:
        taken = readings(clock)
        assert all(reading.status is status for reading in taken)
        assert [reading.midpoint_ns for reading in taken] == sorted(reading.midpoint_ns for reading in taken)
        assert not clock.fenced
        assert clock.status is status
        age_ns = clock.age_ns
        passed_ns = true_ns(_core.counter()) - began_ns
        # 50 ppm of 10 s, and of the time that passed since, and the reference's microsecond.
        assert all(500_900 < reading.error_ns < 501_100 + passed_ns / 20_000 for reading in taken)
        assert 10**10 < age_ns + 10**6 < 10**10 + passed_ns + 2 * 10**6
        assert clock.path == str(segment_path)
    world.close()


def test_commit_counts_from_the_next_reading_on(world: World, clock: Clock) -> None:
    """No reading is of a body that was no longer the segment's."""
    for error_s in range(1, 20):  # apart by more than a bound grows in hours
        world.tell(time_maxerror_nanosec=error_s * 10**9)
        assert [reading.error_ns // 10**9 for reading in readings(clock)] == [error_s] * 3


def test_tai_becomes_utc(world: World, clock: Clock) -> None:
    """A segment that counts in TAI with its offset gives UTC."""
    true_s = int(true_ns(_core.counter()) // 10**9)
    body = body_now()
    world.tell(
        time_type=1,
        flags=BOUNDED | Flags.TAI_OFFSET_VALID,
        tai_offset_sec=-37,
        time_sec=body.time_sec + 37,
        time_frac_sec=body.time_frac_sec,
        counter_value=body.counter_value,
    )
    assert all(abs(reading.earliest_ns // 10**9 - true_s) <= 5 for reading in readings(clock))


def test_captured_page_of_a_device_has_no_time(tmp_path: Path, vectors: Path) -> None:
    """What QEMU's device says is read, and is no bound: the error says so."""
    page = tmp_path / "page"
    shutil.copyfile(vectors / "linux-device" / "run-q10-k73-g01-migrate-after.bin", page)
    with Clock(page, fence=None) as clock:
        assert clock.status is ClockStatus.UNKNOWN
        with pytest.raises(CounterNotSupportedError, match="counter_id is INVALID"):
            clock.now()


def test_captured_page_with_time_is_told_like_a_segment(tmp_path: Path) -> None:
    """A page of 4096 bytes in a file, as it was saved from a device that has time."""
    body = body_now()
    page = exact_time.Page(size=4096, counter_id=COUNTER_ID, **asdict_of(body))
    path = tmp_path / "page"
    path.write_bytes(page.pack().ljust(4096, b"\0"))
    with Clock(path, fence=None) as clock:
        readings(clock)


def asdict_of(body: object) -> dict[str, int]:
    """The fields of *body* that a test's page has too."""
    names = asdict(exact_time.Page()).keys() & type(body).model_fields.keys()  # type: ignore[attr-defined]
    return {name: int(getattr(body, name) or 0) for name in names}


def test_path_may_come_from_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path: $VMCLOCK_ASYNC_SEGMENT."""
    monkeypatch.setenv("VMCLOCK_ASYNC_SEGMENT", str(world.path))
    with Clock() as clock:
        assert clock.path == str(world.path)


def test_system_segment_that_may_not_be_seen_is_a_typed_error(tmp_path: Path) -> None:
    """Where /run/vmclock-async may not be searched, the error is SegmentError; but a user's own segment is found."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    command = in_own_mounts(
        f"export XDG_RUNTIME_DIR={tmp_path}/runtime",
        "mount -t tmpfs none /run",
        "mkdir -m 0 /run/vmclock-async",
        'exec setpriv --bounding-set=-all --inh-caps=-all -- "$@"',
    )
    refused, found = subprocess.check_output([*command, path_of("clock_of_user")], text=True).splitlines()
    assert refused.startswith("/run/vmclock-async/shm0: may not be read by this user")
    assert found == "True"


# Why there is none.


@pytest.mark.parametrize(
    ("changes", "error", "remedy"),
    [
        pytest.param({"clock_status": 0}, ClockNotSynchronizedError, "is UNKNOWN; wait", id="unknown"),
        pytest.param({"clock_status": 1}, ClockNotSynchronizedError, "is INITIALIZING; wait", id="initializing"),
        pytest.param({"clock_status": 4}, ClockNotSynchronizedError, "is UNRELIABLE; wait", id="unreliable"),
        pytest.param({"clock_status": 99}, ClockNotSynchronizedError, "is 99; wait", id="unheard-of"),
        pytest.param(
            {"flags": BOUNDED & ~Flags.TIME_MAXERROR_VALID},
            ClockUnboundedError,
            "time_maxerror_nanosec is not valid .* use a source that bounds it",
            id="no-time-bound",
        ),
        pytest.param(
            {"flags": BOUNDED & ~Flags.PERIOD_MAXERROR_VALID},
            ClockUnboundedError,
            "maxerror_rate_frac_sec is not valid .* use a source that bounds it",
            id="no-period-bound",
        ),
        pytest.param(
            {"time_type": 1, "tai_offset_sec": -37}, ClockUnboundedError, "offset to UTC is not valid", id="tai"
        ),
        pytest.param(
            {"time_type": 1, "tai_offset_sec": 37, "flags": BOUNDED | Flags.TAI_OFFSET_VALID},
            ClockUnboundedError,
            "the publisher uses the old sign",
            id="tai-old-sign",
        ),
        pytest.param({"time_type": 2}, ClockUnboundedError, "MONOTONIC, which cannot be", id="monotonic"),
        pytest.param({"time_type": 3}, ClockUnboundedError, "SMEARED, which cannot be", id="smeared"),
        pytest.param({"counter_period_frac_sec": 0}, ClockUnboundedError, "is 0: nothing tells", id="no-period"),
        pytest.param(
            {"time_sec": 0, "time_maxerror_nanosec": 10**10},
            ClockUnboundedError,
            "leaves the years 1970 to 2262",
            id="1970",
        ),
        pytest.param({"time_sec": 2**64 - 1}, ClockUnboundedError, "leaves the years 1970 to 2262", id="never"),
        pytest.param({"age_s": 1001}, ClockStaleError, "1001 s old, .* is its publisher running", id="stale"),
        pytest.param({"age_s": -5}, ClockDisruptedError, "behind the segment's .* wait for a new", id="ahead"),
        pytest.param(
            {"counter_id": 1 - COUNTER_ID},
            CounterNotSupportedError,
            "in this machine's counter",
            id="other-counter",
        ),
        pytest.param(
            {"counter_id": 255}, CounterNotSupportedError, "tells no time .* publisher's log says", id="no-counter"
        ),
        pytest.param({"counter_period_shift": 64}, CounterNotSupportedError, "is 64, more than 63", id="shift"),
    ],
)
def test_each_reason_has_its_error_and_its_remedy(
    world: World, clock: Clock, changes: dict[str, Any], error: type[ClockError], remedy: str
) -> None:
    """The error's type says what one can do, its text what was seen; and it goes with the next sound commit."""
    for _ in range(2):
        readings(clock)
        world.tell(**changes)
        for _ in range(2):
            with pytest.raises(error, match=remedy) as caught:
                clock.now()
            assert type(caught.value) is error
        world.tell()
    readings(clock)


def test_max_age_is_the_callers(world: World) -> None:
    """A reference is carried forward for as long as the caller allows, and no longer."""
    world.tell(age_s=100)
    with Clock(world.path, max_age=90, fence=None) as short, Clock(world.path, max_age=200, fence=None) as long:
        readings(long)
        with pytest.raises(ClockStaleError, match="more than 90 s"):
            short.now()


def test_reading_ends_at_max_age_though_the_core_alone_gave_it(world: World) -> None:
    """now() by the core stops when the reference gets too old between two readings."""
    with Clock(world.path, fence=None) as clock, world.path.open("r+b", buffering=0) as page:
        readings(clock)
        grow_old(page, clock.max_age)
        with pytest.raises(ClockStaleError):
            clock.now()


@pytest.mark.parametrize("max_age", [0, -1, float("nan"), float("inf"), 2**33])
def test_max_age_out_of_range_is_refused(world: World, max_age: float) -> None:
    """A ValueError that names it; nothing stays open."""
    before = open_descriptors()
    with pytest.raises(ValueError, match="max_age"):
        Clock(world.path, max_age=max_age)
    assert open_descriptors() == before


@pytest.mark.parametrize("drift", [0, -1, float("nan"), float("inf"), 10**6 + 1])
def test_max_drift_out_of_range_is_refused(world: World, drift: float) -> None:
    """A ValueError that names it."""
    with pytest.raises(ValueError, match="max_drift_ppm"):
        Clock(world.path, max_drift_ppm=drift)


def test_max_drift_stands_in_for_the_pages(world: World) -> None:
    """Where the page does not say how far off its period may be, the caller's word is taken, and not else."""
    for flags, expected_ppm in ((BOUNDED, 50), (BOUNDED & ~Flags.PERIOD_MAXERROR_VALID, 100)):
        # Where the flag is clear the field means nothing.
        rate = {"counter_period_maxerror_rate_frac_sec": 2**64 - 1} if expected_ppm == 100 else {}
        world.tell(age_s=100, flags=flags, **rate)
        with Clock(world.path, fence=None, max_drift_ppm=100) as clock:
            for reading in readings(clock):
                assert abs(reading.error_ns - 1000 - 100 * expected_ppm * 1000) < 100 * expected_ppm


def test_max_error_is_inclusive(world: World, clock: Clock) -> None:
    """Exactly the error that there is does; a nanosecond less is ClockUnboundedError, and the next reading as good."""
    # So slow that the error is the same whenever it is read.
    world.tell(counter_period_frac_sec=1, counter_period_shift=63, time_maxerror_nanosec=500, time_frac_sec=0)
    error_ns = clock.now().error_ns
    assert error_ns == 502
    for _ in range(2):
        assert clock.now(max_error_ns=error_ns).error_ns == error_ns
        with pytest.raises(
            ClockUnboundedError, match=r"bounded to 502 ns, .* more than 501; wait_bounded\(\) waits"
        ):
            clock.now(max_error_ns=error_ns - 1)
        assert clock.at(_core.counter(), max_error_ns=error_ns).error_ns == error_ns
        with pytest.raises(ClockUnboundedError):
            clock.at(_core.counter(), max_error_ns=error_ns - 1)
    assert clock.now(max_error_ns=None).error_ns == clock.now(max_error_ns=2**64 - 1).error_ns == error_ns


@pytest.mark.parametrize("told", ["the core", "the slow way", "by hand"])
def test_arguments_that_are_no_error_bound_are_refused(world: World, clock: Clock, told: str) -> None:
    """A negative number, one beyond 64 bits, a float, a positional argument; whether there is a bound or not."""
    asked: Clock | ManualClock = clock
    if told == "the slow way":
        world.tell(clock_status=0)
    if told == "by hand":
        asked = ManualClock()
    ask: list[Callable[..., object]] = [asked.now, partial(asked.at, 0), partial(asked.at_monotonic, 0)]
    for value, error in ((-1, ValueError), (2**64, ValueError), (1.5, TypeError), ("1", TypeError)):
        for method in ask:
            with pytest.raises(error, match="max_error_ns must be from 0 to 2" if error is ValueError else None):
                method(max_error_ns=value)


def test_now_takes_nothing_else(clock: Clock) -> None:
    """No positional argument, and no other keyword."""
    with pytest.raises(TypeError, match="max_error_ns"):
        clock.now(1000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_error_ns"):
        clock.now(max_error=1000)  # type: ignore[call-arg]


def test_segment_in_anothers_place_with_its_inode_number() -> None:
    """Numbers are a file system's own, and given out again: a replacement is seen by its being another file."""
    mounted = (f"mkdir /mnt/{number}; mount -t tmpfs none /mnt/{number}" for number in (1, 2))
    command = in_own_mounts("mount -t tmpfs none /mnt", *mounted)
    lost, *events = subprocess.check_output([*command, path_of("clock_elsewhere")], text=True).splitlines()
    assert lost.startswith("the lease is over: the segment was replaced")
    assert events == ["SegmentReplaced", "Disrupted"]


# What becomes of the segment.


def test_segment_that_was_replaced_is_found(world: World, clock: Clock) -> None:
    """Within a second of the last commit to the old file the clock reads the new one, and before any error is given."""
    readings(clock)
    world.replace(clock_status=ClockStatus.FREERUNNING)
    began = asked = time.monotonic()
    while clock.now().status is ClockStatus.SYNCHRONIZED:
        assert asked < began + 1.1, "asked after a second, it gave the old file's time"
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
        given_up = pytest.raises(SegmentUnstableError, match=r"stayed odd at 3 for 0\.5 ms: .* start it again")
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
    assert open_descriptors() == before
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
    assert open_descriptors() == before


# Processes and threads.


def test_clock_goes_on_in_the_child_of_a_fork(world: World, run_script: RunScript) -> None:
    """Parent and child read on, each for itself, and closing one does not close the other."""
    output = run_script("fork_clock", world.path)
    assert output.split() == ["child", "True", "parent", "True"]


@pytest.mark.long
def test_threads_share_a_clock(world: World, clock: Clock) -> None:
    """Four threads read beside commits that change the marker: nothing but readings that contain the truth."""
    stop = threading.Event()
    problems: list[object] = []
    counts = [0] * 4

    def read(reader: int) -> None:
        while not stop.is_set():
            try:
                readings(clock)
                counts[reader] += 1
            except SegmentUnstableError:
                continue
            except BaseException as exc:
                problems.append(exc)
                raise

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        for commit in itertools.count():
            world.marker = commit // 3
            world.tell()
            time.sleep(0.001)
            if problems or (commit >= 60 and min(counts) >= 10):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []


def read_for_ever(clock: Clock) -> None:
    """Until it raises."""
    while True:
        clock.now()


def test_closing_beside_readers_in_other_threads_is_an_error_for_them(world: World) -> None:
    """They get SegmentError, never a signal."""
    for _ in range(20):
        clock = Clock(world.path, fence=world.device)

        def read(clock: Clock = clock) -> None:
            with pytest.raises(SegmentError, match="closed"):
                read_for_ever(clock)

        thread = threading.Thread(target=read)
        thread.start()
        clock.close()
        thread.join()
