"""What a clock gives a bound of, and why there is none."""

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kit import exact_time
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.readings import readings
from kit.told_world import BOUNDED, World, body_now, grow_old, open_descriptors, true_ns
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
    _core,
)
from vmclock_async.testing import ManualClock
from vmclock_async.timebase import COUNTER_ID

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


def asdict_of(body: object) -> dict[str, int]:
    """The fields of *body* that a test's page has too."""
    names = asdict(exact_time.Page()).keys() & type(body).model_fields.keys()  # type: ignore[attr-defined]
    return {name: int(getattr(body, name) or 0) for name in names}


def test_captured_page_with_time_is_told_like_a_segment(tmp_path: Path) -> None:
    """A page of 4096 bytes in a file, as it was saved from a device that has time."""
    body = body_now()
    page = exact_time.Page(size=4096, counter_id=COUNTER_ID, **asdict_of(body))
    path = tmp_path / "page"
    path.write_bytes(page.pack().ljust(4096, b"\0"))
    with Clock(path, fence=None) as clock:
        readings(clock)


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
    assert not open_descriptors() - before


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
    """A negative number, one beyond 64 bits, a float, a string, a bool; whether there is a bound or not."""
    asked: Clock | ManualClock = clock
    clock.now()  # the first one is always slow
    if told == "the slow way":
        world.tell(clock_status=0)
    if told == "by hand":
        asked = ManualClock()
    ask: list[Callable[..., object]] = [
        asked.now,
        partial(asked.at, _core.counter()),
        partial(asked.at_monotonic, time.monotonic_ns()),
    ]
    for value, error in (
        (-1, ValueError),
        (2**64, ValueError),
        (1.5, TypeError),
        ("1", TypeError),
        (True, TypeError),
    ):
        for method in ask:
            with pytest.raises(error, match="max_error_ns must be from 0 to 2" if error is ValueError else None):
                method(max_error_ns=value)


def test_now_takes_nothing_else(clock: Clock) -> None:
    """No positional argument, and no other keyword."""
    with pytest.raises(TypeError, match="max_error_ns"):
        clock.now(1000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_error_ns"):
        clock.now(max_error=1000)  # type: ignore[call-arg]
