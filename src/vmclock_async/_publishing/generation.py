"""The generation counter that the publisher draws itself, where no source gives one.

A device's generation counter shows each restore of the machine from a snapshot. Most machines have no such device, but
something else notices a restore: the kernel's vmgenid driver, or an agent that reports it. The segment then has a
counter of the publisher's own, which only ever says that it is another one than before:

* It is there from the moment when a source announces that it reports each restore, so that readers know that they see
  restores; and from the first restore on, if nobody announced it. It is taken away if the source that announced it ends
  or becomes unavailable, and nobody else reports restores.
* Where a device gives a marker and no counter, each change of its marker may be a restore, and counts as one unless a
  source has announced that it reports each.
* Each restore draws another one. One restore may be reported by several: by the kernel's driver and by a program. A
  report counts as one more of the same restore if it comes within ``SAME_RESTORE_NS``, its reporter has not reported
  that restore yet, and nothing disrupted the machine in between. So two reports of one reporter are two restores.
* It is random, not counted: a counter would repeat its values after the same snapshot
  is restored again, or after the segment is lost.
* Its high 32 bits say that it is a publisher's own (``abi.OWN_GENERATION``): a counter that changes its origin is no
  restore.
* A source that gives a generation counter, such as the device, has precedence, because its device sees restores first.
* The next run of a publisher goes on with the last one once a source has announced restores; until then the segment has
  none, because nobody may report restores any more.
"""

import time
from collections.abc import Callable
from typing import Final, final

from vmclock_async._publishing.draft import Draft
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.abi import OWN_GENERATION, Flags, is_own_generation

__all__ = ("SAME_RESTORE_NS", "OwnGeneration")

SAME_RESTORE_NS: Final = 10 * 10**9
"""Longest time in nanoseconds between two reports of one restore: a program reports it once it runs again."""

_PRESENT: Final = Flags.VM_GEN_COUNTER_PRESENT.value


@final
class OwnGeneration:
    """The publisher's own generation counter.

    Args:
        last: the one that the segment had.
        now_ns: CLOCK_MONOTONIC, nanoseconds.
    """

    def __init__(self, last: int | None, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._last = last if last is not None and is_own_generation(last) else None
        self._now_ns: Final = now_ns
        self._is_due = False
        self._announces: Final[dict[str, bool]] = {}
        """Those that report restores, and whether each has announced that it reports all of them."""
        self._restored_ns = 0
        """Time of the first report of the latest restore."""
        self._heard_from: Final[set[str]] = set()
        """The reporters of the latest restore; empty: a report is of another one."""

    def announce(self, reporter: str) -> None:
        """Note that *reporter* reports each restore from now on."""
        self._announces[reporter] = True

    def withdraw(self, reporter: str) -> None:
        """Note that *reporter* cannot keep any more what it has announced."""
        if self._announces.get(reporter):
            del self._announces[reporter]

    def note_restore(self, reporter: str) -> None:
        """Note that *reporter* reports a restore that no device's counter shows."""
        self._announces.setdefault(reporter, False)
        is_same = self._heard_from and self._now_ns() - self._restored_ns <= SAME_RESTORE_NS
        if is_same and reporter not in self._heard_from:
            self._heard_from.add(reporter)
        else:
            self._begin_restore(reporter)

    def note_disruption(self) -> None:
        """Note a disruption that nobody reported: a report after it is not of a restore before it."""
        self._heard_from.clear()

    def note_device_marker(self, device: str) -> None:
        """Note that the marker of *device* has changed; if the counter is this one, the machine may be restored."""
        self.note_disruption()
        if not any(self._announces.values()):
            self._begin_restore(device)

    def note_another(self) -> None:
        """Note that a source gives the counter: it also shows the restores noted so far."""
        self._is_due = False

    def take(self, draft: Draft) -> None:
        """Put the present counter into *draft*, a new one if one is due."""
        if self._is_due or (self._announces and self._last is None):
            self._last = _drawn(self._last, draft.values["disruption_marker"])
        self._is_due = False
        if self._announces:
            draft.values["vm_generation_counter"] = self._last
            draft.flags |= _PRESENT
        elif self._last is not None:  # nobody reports restores any more
            draft.values["vm_generation_counter"] = None
            draft.flags &= ~_PRESENT

    def _begin_restore(self, reporter: str) -> None:
        self._is_due = True
        self._restored_ns = self._now_ns()
        self._heard_from.clear()
        self._heard_from.add(reporter)


def _drawn(before: int | None, marker: int) -> int:
    while True:
        drawn = OWN_GENERATION + int.from_bytes(Ingredients.gather(before, marker).mix()[:4], "big")
        if drawn != before:
            return drawn
