"""The generation counter that the publisher draws itself, where no source gives one.

A device's generation counter shows each restore of the machine from a snapshot. Most machines have no such device, but
something else notices a restore: the kernel's vmgenid driver, or an agent that reports it. The segment then has a
counter of the publisher's own, which only ever says that it is another one than before:

* It is there from the moment when a source announces that it reports each restore, so that readers know that they see
  restores; and from the first restore on, if nobody announced it.
* Where a device gives a marker and no counter, each change of its marker may be a restore, and counts as one unless a
  source has announced that it reports each.
* Each restore draws another one. It is random, not counted: a counter would repeat its values after the same snapshot
  is restored again, or after the segment is lost.
* Its high 32 bits say that it is a publisher's own (``abi.OWN_GENERATION``): a counter that changes its origin is no
  restore.
* A source that gives a generation counter, such as the device, has precedence, because its device sees restores first.
* The next run of a publisher goes on with the last one once a source has announced restores; until then the segment has
  none, because nobody may report restores any more.
"""

from typing import Final, final

from vmclock_async._publishing.draft import Draft
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.abi import OWN_GENERATION, Flags, is_own_generation

__all__ = ("OwnGeneration",)

_PRESENT: Final = Flags.VM_GEN_COUNTER_PRESENT.value


@final
class OwnGeneration:
    """The publisher's own generation counter; *last* is the one that the segment had."""

    def __init__(self, last: int | None) -> None:
        self._last = last if last is not None and is_own_generation(last) else None
        self._is_announced = False
        self._is_due = False
        self._is_drawn = False
        """Whether this run has drawn one."""

    def announce(self) -> None:
        """Note that a source reports each restore from now on."""
        self._is_announced = True

    def note_restore(self) -> None:
        """Note a restore that no device's counter shows."""
        self._is_due = True

    def note_device_marker(self) -> None:
        """Note that a device's marker has changed; if the counter is this one, the machine may have been restored."""
        if self._is_drawn and not self._is_announced:
            self._is_due = True

    def note_another(self) -> None:
        """Note that a source gives the counter: it also shows the restores noted so far."""
        self._is_due = False

    def take(self, draft: Draft) -> None:
        """Put the present counter into *draft*, a new one if one is due."""
        if self._is_due or (self._is_announced and self._last is None):
            self._last = _drawn(self._last, draft.values["disruption_marker"])
            self._is_drawn = True
        self._is_due = False
        if self._is_announced or self._is_drawn:
            draft.values["vm_generation_counter"] = self._last
            draft.flags |= _PRESENT
        elif self._last is not None:  # of the run before: nobody may report restores any more
            draft.values["vm_generation_counter"] = None
            draft.flags &= ~_PRESENT


def _drawn(before: int | None, marker: int) -> int:
    while True:
        drawn = OWN_GENERATION + int.from_bytes(Ingredients.gather(before, marker).mix()[:4], "big")
        if drawn != before:
            return drawn
