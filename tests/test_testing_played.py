"""What happens to a played machine, body by body."""

from collections.abc import Callable
from typing import Any

import pytest

from vmclock_async import ClockStatus, Flags, VMClockBody
from vmclock_async.testing import PlayedMachine

BOUNDS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
ANNOUNCED = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT


class Script(PlayedMachine):
    """A stage that writes down what is put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[VMClockBody] = []
        self.devices: list[VMClockBody] = []
        self._commit(self._fresh())

    def _measure(self, shift_ns: int) -> dict[str, Any]:
        return {
            "clock_status": ClockStatus.SYNCHRONIZED,
            "time_sec": 100 + shift_ns,
            "time_maxerror_nanosec": 1,
            "counter_period_maxerror_rate_frac_sec": 1,
        }

    def _take(self, body: VMClockBody) -> None:
        self.bodies.append(body)

    def _take_device(self, body: VMClockBody) -> None:
        self.devices.append(body)

    def _leave_odd(self) -> None:
        raise NotImplementedError


def told(body: VMClockBody) -> tuple[int, int | None, int, bool]:
    """Marker, generation, status, and whether there is a bound."""
    return (
        body.disruption_marker,
        body.vm_generation_counter,
        body.clock_status,
        body.flags & BOUNDS == BOUNDS,
    )


SYNCHRONIZED, FREERUNNING, UNKNOWN = ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING, ClockStatus.UNKNOWN


@pytest.mark.parametrize(("happen", "generation"), [(Script.migrate, 1), (Script.restore, 2)])
def test_disruption_voids_the_time_with_its_marker(happen: Callable[[Script], None], generation: int) -> None:
    """The commit that carries the marker is the void one; the next has a time. A restore has a generation, too."""
    machine = Script()
    happen(machine)
    assert [told(body) for body in machine.bodies] == [
        (1, 1, SYNCHRONIZED, True),
        (2, generation, UNKNOWN, False),
        (2, generation, SYNCHRONIZED, True),
    ]
    assert [(body.disruption_marker, body.vm_generation_counter) for body in machine.devices] == [(2, generation)]
    assert machine.body == machine.bodies[-1]


def test_step_has_a_marker_of_the_publishers_own() -> None:
    """One commit, and the device's low half of the marker stays; a migration goes on from there."""
    machine = Script()
    machine.step(5)
    machine.step(-7)
    machine.migrate()
    assert [body.disruption_marker for body in machine.bodies] == [
        1,
        1 + 2**32,
        1 + 2 * 2**32,
        *[2 + 2 * 2**32] * 2,
    ]
    assert [body.time_sec for body in machine.bodies] == [100, 105, 98, 98, 98]
    assert [body.disruption_marker for body in machine.devices] == [2]


def test_sync_is_lost_and_regained() -> None:
    """FREERUNNING keeps the bound and the reference; void has neither; the marker is the same throughout."""
    machine = Script()
    machine.lose_sync()
    machine.lose_sync(void=True)
    machine.regain_sync()
    assert [told(body)[2:] for body in machine.bodies] == [
        (SYNCHRONIZED, True),
        (FREERUNNING, True),
        (UNKNOWN, False),
        (SYNCHRONIZED, True),
    ]
    assert {body.disruption_marker for body in machine.bodies} == {1}
    assert machine.devices == []


def test_maintenance_is_announced_and_over() -> None:
    """The device says it, and the publisher; the migration itself takes it back. No time is touched."""
    machine = Script()
    machine.announce_maintenance()
    machine.announce_maintenance(imminent=True)
    machine.migrate()
    assert [body.flags & ANNOUNCED for body in machine.bodies] == [0, Flags.DISRUPTION_SOON, ANNOUNCED, 0, 0]
    assert [body.flags & ANNOUNCED for body in machine.devices] == [Flags.DISRUPTION_SOON, ANNOUNCED, 0]
    assert told(machine.bodies[2]) == (1, 1, SYNCHRONIZED, True)


def test_frozen_publisher_commits_nothing() -> None:
    """Its own doings are errors; the device goes on, and once it runs again it tells what happened."""
    machine = Script()
    machine.freeze()
    for doing in (
        machine.lose_sync,
        machine.regain_sync,
        lambda: machine.step(1),
        lambda: machine.change(time_sec=1),
    ):
        with pytest.raises(RuntimeError, match=r"frozen.*thaw\(\) it first"):
            doing()
    machine.migrate()
    machine.restore()
    machine.announce_maintenance()
    assert len(machine.bodies) == 1
    assert [body.disruption_marker for body in machine.devices] == [2, 3, 3]
    machine.thaw()
    assert [told(body) for body in machine.bodies[1:]] == [(3, 2, UNKNOWN, False), (3, 2, SYNCHRONIZED, True)]
    assert machine.body.flags & ANNOUNCED == Flags.DISRUPTION_SOON
    assert machine.body.time_sec == 100, "a step that was refused is none"


@pytest.mark.parametrize(("lost", "status"), [(False, SYNCHRONIZED), (True, FREERUNNING)])
def test_thawed_publisher_goes_on_where_nothing_happened(lost: bool, status: ClockStatus) -> None:
    """One commit, which voids nothing: a fresh time if it had one."""
    machine = Script()
    if lost:
        machine.lose_sync()
    machine.freeze()
    machine.thaw()
    assert told(machine.body) == (1, 1, status, True)
    assert len(machine.bodies) == 2 + lost


def test_change_is_of_the_last_body() -> None:
    """As make_body: values raise flags; everything else stays, and lasts through what happens next."""
    machine = Script()
    machine.change(tai_offset_sec=-37, disruption_marker=9)
    assert machine.body.flags & Flags.TAI_OFFSET_VALID
    assert told(machine.body) == (9, 1, SYNCHRONIZED, True)
    machine.migrate()
    assert machine.body.tai_offset_sec == -37
    assert machine.body.disruption_marker == 2, "the device's"
    with pytest.raises(TypeError, match="a body has no marker"):
        machine.change(marker=1)
