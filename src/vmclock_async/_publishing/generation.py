"""The generation counter that the publisher draws itself, where no source gives one.

A device's generation counter shows each restore of the machine from a snapshot. Most machines have no such device, but
something else notices a restore: the kernel's vmgenid driver, or an agent that reports it. The segment then has a
counter of the publisher's own, which only ever says that it is another one than before:

* It is there from the moment when a source announces that it reports each restore, so that readers know that they see
  restores; and from the first restore on, if nobody announced it.
* Each restore draws another one. It is random, not counted: a counter would repeat its values after the same snapshot
  is restored again, or after the segment is lost.
* Its high 32 bits say that it is a publisher's own (``abi.OWN_GENERATION``): a counter that changes its origin is no
  restore.
* A source that gives a generation counter, such as the device, has precedence, because its device sees restores first.
* The segment keeps the last one, and so does the next run of a publisher.
"""

from typing import Final, final

from vmclock_async._publishing.draft import Draft
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.abi import OWN_GENERATION, Flags

__all__ = ("OwnGeneration",)

_PRESENT: Final = Flags.VM_GEN_COUNTER_PRESENT.value


@final
class OwnGeneration:
    """The publisher's own generation counter."""

    def __init__(self) -> None:
        self._is_announced = False
        self._is_due = False

    def announce(self) -> None:
        """Note that a source reports each restore from now on."""
        self._is_announced = True

    def note_restore(self) -> None:
        """Note a restore that no device's counter shows."""
        self._is_due = True

    def note_another(self) -> None:
        """Note that a source gives the counter: it also shows the restores noted so far."""
        self._is_due = False

    def take(self, draft: Draft) -> None:
        """Put a new counter into *draft* if one is due; otherwise *draft* keeps the one that it has."""
        before: int | None = draft.values["vm_generation_counter"]
        if self._is_due or (self._is_announced and before is None):
            draft.values["vm_generation_counter"] = _drawn(before, draft.values["disruption_marker"])
            draft.flags |= _PRESENT
        self._is_due = False


def _drawn(before: int | None, marker: int) -> int:
    while True:
        drawn = OWN_GENERATION + int.from_bytes(Ingredients.gather(before, marker).mix()[:4], "big")
        if drawn != before:
            return drawn
