"""The bodies that the testing kit makes."""

import time

import pytest
from pydantic import ValidationError

from kit.calls import builtin_calls
from vmclock_async import ClockStatus, Flags, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID, pair

MS = 10**6
BOUNDS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID


def bounds_of(body: VMClockBody, counter: int) -> tuple[int, int]:
    return bounds_at(Contents(body, COUNTER_ID, TimeType.UTC), counter, counter_id=COUNTER_ID)


def test_body_is_of_this_machine_and_now() -> None:
    """It contains CLOCK_REALTIME, to a millisecond at once and to 500 ppm more later; marker and generation are 1."""
    make_body()  # which measures the period, and that takes a while
    began_ns = time.monotonic_ns()
    body = make_body()
    for pause_s in (0.0, 0.1):  # for the period to matter
        time.sleep(pause_s)
        now = pair(time.CLOCK_REALTIME)
        passed_ns = time.monotonic_ns() - began_ns
        earliest_ns, latest_ns = bounds_of(body, now.counter_ticks)
        assert earliest_ns < now.clock_ns < latest_ns
        assert 2 * MS <= latest_ns - earliest_ns < 2 * MS + passed_ns // 990 + 10
        assert abs((earliest_ns + latest_ns) // 2 - now.clock_ns) < MS // 10 + passed_ns // 2000
    assert (body.disruption_marker, body.vm_generation_counter) == (1, 1)
    assert body.clock_status == ClockStatus.SYNCHRONIZED


def test_bodies_of_one_process_have_one_period() -> None:
    """It is measured once, in 10 ms, and not again for each body."""
    first = make_body()
    with builtin_calls() as called:
        bodies = [make_body() for _ in range(20)]
    assert time.sleep not in called
    assert {body.counter_period_frac_sec for body in bodies} == {first.counter_period_frac_sec}


def test_fields_are_overridden() -> None:
    """A value raises its validity flag, None clears it, and flags are taken as they are."""
    assert make_body(disruption_marker=7).disruption_marker == 7
    assert make_body(tai_offset_sec=-37).flags & Flags.TAI_OFFSET_VALID
    unbounded = make_body(time_maxerror_nanosec=None)
    assert unbounded.flags & BOUNDS == Flags.PERIOD_MAXERROR_VALID
    assert make_body(vm_generation_counter=None).vm_generation_counter is None
    assert not make_body(vm_generation_counter=None).flags & Flags.VM_GEN_COUNTER_PRESENT
    plain = make_body(flags=Flags.DISRUPTION_SOON, vm_generation_counter=None)
    assert plain.flags == Flags.DISRUPTION_SOON
    with pytest.raises(TypeError, match="a body has no counter_id, marker"):
        make_body(marker=1, counter_id=1)
    with pytest.raises(ValidationError, match="time_sec"):
        make_body(time_sec=-1)
