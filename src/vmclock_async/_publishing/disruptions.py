"""Disruptions: the marker that is published, and the epochs that disruptions divide measurements into.

The published marker is the device's plus n * 2**32, where n counts the publisher's own disruptions (a suspend, a
clocksource that changed, an earlier promise that proved wrong). So its low 32 bits are the device's, and readers
that see the device can compare.

A disruption of the counter ends an epoch. Measurements from before it are void: the commit that carries the new
marker also sets clock_status UNKNOWN and clears the error bounds. A source of time notes the epoch before it
measures, and an update from an earlier epoch is dropped. A promise that proved wrong (see nesting) gives a new marker,
but ends no epoch: the counter went on, and measurements stay good.

* A change in any of the 64 bits of the device's marker is a disruption. A maintenance notice is none, and neither is a
  change of the generation counter alone (UAPI.13 calls the two orthogonal).
* The published marker goes up from disruption to disruption, so that it never repeats, although a device's marker may:
  n is the least that makes it so.
* Cold start: the first marker is no disruption, whatever it is.
* Warm start: if the segment's marker differs from the device's by a multiple of 2**32, that multiple is n. If not,
  the machine was disrupted while no publisher ran. The same holds if that multiple is negative, which n cannot be, or
  if the run before in this process saw another marker of the device. A marker that went back by a multiple of 2**32
  while no publisher ran looks like the publisher's own disruptions, and is missed: the page cannot show it.
"""

from typing import Final, final

from vmclock_async.abi import OWN_DISRUPTION, device_marker

__all__ = ("Disruptions", "is_own")

_U64: Final = 2**64


def is_own(difference: int) -> bool:
    """Whether markers that differ by *difference* do so by the publisher's own disruptions alone, at least one."""
    return difference != 0 and device_marker(difference) == 0


@final
class Disruptions:
    """The marker to publish and the present epoch.

    Args:
        marker: the segment's marker.
        cold: whether nobody can have read it yet.
        epoch: number of the first epoch.
        device_marker: the device's marker as last seen; None: it is not known.
    """

    def __init__(self, marker: int, *, cold: bool, epoch: int = 0, device_marker: int | None = None) -> None:
        self.epoch = epoch
        self.cold = cold
        """Cleared by the first commit."""
        self.device_marker = device_marker
        """The device's marker as last seen; None: it is not known."""
        self._is_first = True
        """Whether this publisher has not yet seen a marker from the device."""
        self._base = marker
        self._own = 0

    @property
    def marker(self) -> int:
        """The marker to publish."""
        return (self._base + self._own * OWN_DISRUPTION) % _U64

    def note_marker(self, marker: int) -> bool:
        """Take note of the device's *marker*. Returns whether there was a disruption."""
        first, self._is_first = self._is_first, False
        published, seen, self.device_marker = self.marker, self.device_marker, marker
        if not first and marker == seen:
            return False
        self._base = marker
        if first and self.cold:
            return False
        if first and seen in (None, marker) and published >= marker and device_marker(published - marker) == 0:
            self._own = (published - marker) // OWN_DISRUPTION
            return False
        self._own = max(0, (published - marker) // OWN_DISRUPTION + 1)
        self.epoch += 1
        return True

    def note_interruption(self) -> None:
        """Take note of a disruption of the counter that this machine itself saw."""
        self._own += 1
        self.epoch += 1

    def note_broken_promise(self) -> None:
        """Take note that an earlier interval proved wrong: the marker is new, the epoch stays."""
        self._own += 1

    def note_relayed(self, marker: int) -> None:
        """Take note that *marker* is published verbatim."""
        if marker != self.marker and not self.cold:
            self.epoch += 1
        self.device_marker = self._base = marker
        self._is_first = False
        self._own = 0
