"""The play: what may happen to a machine and to its publisher, and the pages that result.

Each method makes the next page from the last. The stage decides where the pages go and what time it is: files and
this machine's counter (``PlayedSegment``), or memory and virtual time (``ManualClock``).

The device and the publisher are played separately, because that is where the danger is: a stopped publisher has not
yet published what the device already shows.
"""

from abc import ABC, abstractmethod
from typing import Any, Final

from vmclock_async._publishing.draft import voided
from vmclock_async.abi import OWN_DISRUPTION, OWN_GENERATION, ClockStatus, Flags, TimeType
from vmclock_async.models import Contents, VMClockBody
from vmclock_async.testing._bodies import applied
from vmclock_async.timebase import COUNTER_ID

__all__ = ("PlayedMachine",)

_ANNOUNCED: Final = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT


class PlayedMachine(ABC):
    """A machine, its device and its publisher, played: the common part of ``PlayedSegment`` and ``ManualClock``.

    It begins synchronized, with marker 1 and generation counter 1, and its publisher running. Each act of the publisher
    is a commit, and so raises ``RuntimeError`` while the publisher is frozen.

    Args:
        has_device: whether the machine has a device. Without one its marker is 0, nothing shows that it is migrated or
            restored, and its generation counter is the publisher's own.
    """

    def __init__(self, *, has_device: bool = True) -> None:
        self._has_device: Final = has_device
        self._own_generation = OWN_GENERATION + 1
        self._device = (
            VMClockBody(disruption_marker=1, vm_generation_counter=1)
            if has_device
            else VMClockBody(vm_generation_counter=self._own_generation)
        )
        self._body = self._device
        self._own_disruptions = 0
        self._shift_ns = 0
        self._frozen = False

    @property
    def body(self) -> VMClockBody:
        """The body last committed."""
        return self._body

    def migrate(self) -> None:
        """Migrate the machine: the device's marker moves.

        The publisher, if it runs, commits the new marker with a void time, and then a fresh time. To look in between:
        ``migrate()``, ``lose_sync(void=True)``, and later ``regain_sync()``.
        """
        self._disrupt()

    def restore(self) -> None:
        """Restore the machine from a snapshot: the same as ``migrate``, and the generation counter moves too."""
        assert self._device.vm_generation_counter is not None
        self._disrupt(vm_generation_counter=self._device.vm_generation_counter + 1)

    def report_disruption(self, *, restored: bool = False) -> None:
        """Let a program report a disruption to the publisher, as ``vmclock-async disrupt`` does.

        One commit has the publisher's own marker and a void time, the next one a fresh time.

        Args:
            restored: whether the program says that the machine was restored. On a machine without a device, the
                publisher's own generation counter is another one then.
        """
        self._require_running()
        self._own_disruptions += 1
        if restored and not self._has_device:
            self._own_generation += 1
            self._device = self._device.model_copy(update={"vm_generation_counter": self._own_generation})
        self._commit(_void(self._as_the_device_says(self._body)))
        self._commit(self._fresh())

    def step(self, ns: int) -> None:
        """Let the publisher find that true time is *ns* nanoseconds later than it had promised (negative: earlier).

        One commit has the new time and the publisher's own marker: the device's plus a multiple of 2**32.
        """
        self._require_running()
        self._own_disruptions += 1
        self._shift_ns += ns
        self._commit(self._fresh())

    def lose_sync(self, *, void: bool = False) -> None:
        """Let the publisher's source lose the time: SYNCHRONIZED becomes FREERUNNING, and the bound grows.

        Args:
            void: whether this has lasted long: then the status is UNKNOWN, and there is no bound.
        """
        self._commit(_void(self._body) if void else applied(self._body, {"clock_status": ClockStatus.FREERUNNING}))

    def regain_sync(self) -> None:
        """Let the publisher's source have the time again: a fresh one, SYNCHRONIZED."""
        self._commit(self._fresh())

    def announce_maintenance(self, *, imminent: bool = False) -> None:
        """Let the device announce a disruption; the publisher, if it runs, announces it too.

        Args:
            imminent: whether it is within about an hour; if not, within about a day.
        """
        announced = _ANNOUNCED if imminent else Flags.DISRUPTION_SOON
        self._change_device(flags=Flags(self._device.flags & ~_ANNOUNCED | announced))
        if not self._frozen:
            self._commit(self._as_the_device_says(self._body))

    def die_mid_commit(self) -> None:
        """Kill the publisher in the middle of a commit: seq_count is odd until the next one."""
        self._leave_odd()

    def freeze(self) -> None:
        """Stop the publisher: nothing is committed any more. The device goes on."""
        self._frozen = True

    def thaw(self) -> None:
        """Let the publisher run again. It commits what the device shows, and a fresh time if it had one.

        If the machine was disrupted meanwhile, it does the same as after ``migrate``.
        """
        self._frozen = False
        self._catch_up()

    def change(self, **fields: Any) -> None:
        """Let the publisher commit its last body with other values in *fields*, which are as for ``make_body``.

        Raises:
            TypeError: a body has no such field.
            pydantic.ValidationError: a value is out of the field's range.
        """
        self._commit(applied(self._body, fields))

    def _disrupt(self, **device: int) -> None:
        if not self._has_device:
            return  # nothing shows it
        marker, flags = self._device.disruption_marker + 1, Flags(self._device.flags & ~_ANNOUNCED)
        self._change_device(disruption_marker=marker, flags=flags, **device)
        if not self._frozen:
            self._catch_up()

    def _catch_up(self) -> None:
        body = self._as_the_device_says(self._body)
        if body.disruption_marker != self._body.disruption_marker:
            self._commit(_void(body))
            self._commit(self._fresh())
        else:
            self._commit(self._fresh() if body.clock_status == ClockStatus.SYNCHRONIZED else body)

    def _change_device(self, **fields: int) -> None:
        self._device = self._device.model_copy(update=fields)
        if self._has_device:
            self._take_device(self._device)

    def _as_the_device_says(self, body: VMClockBody) -> VMClockBody:
        device = self._device
        update = {
            "disruption_marker": device.disruption_marker + self._own_disruptions * OWN_DISRUPTION,
            "vm_generation_counter": device.vm_generation_counter,
            "flags": Flags(body.flags & ~_ANNOUNCED | device.flags),
        }
        return body.model_copy(update=update)

    def _fresh(self) -> VMClockBody:
        return applied(self._as_the_device_says(self._body), self._measure(self._shift_ns))

    def _commit(self, body: VMClockBody) -> None:
        self._require_running()
        self._take(body)
        self._body = body

    def _require_running(self) -> None:
        if self._frozen:
            raise RuntimeError("the publisher is frozen, and commits nothing; thaw() it first")

    @abstractmethod
    def _measure(self, shift_ns: int) -> dict[str, Any]:
        """The fields of a synchronized time as it is now, *shift_ns* later."""

    @abstractmethod
    def _take(self, body: VMClockBody) -> None:
        """Commit *body* to the page, whoever wrote there last."""

    @abstractmethod
    def _take_device(self, body: VMClockBody) -> None:
        """Commit *body* to the device."""

    @abstractmethod
    def _leave_odd(self) -> None:
        """Leave the page's seq_count odd."""


def _void(body: VMClockBody) -> VMClockBody:
    return voided(Contents(body, COUNTER_ID, TimeType.UTC)).body
