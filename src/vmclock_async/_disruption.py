"""Disruptions: the marker that is published, and the epochs that disruptions divide measurements into.

The published marker is the device's plus n * 2**32, where n counts the publisher's own disruptions (a suspend, a
clocksource that changed, an earlier promise that proved wrong). So its low 32 bits are the device's, and readers
that see the device can compare.

A disruption of the counter ends an epoch. What was measured before it is void: the commit that carries the new
marker is the one that sets clock_status UNKNOWN and clears the error bounds. A source of time notes the epoch
before it measures, and an update from an earlier epoch is dropped. A promise that proved wrong (see nesting) is a
new marker, but ends no epoch: the counter went on, and measurements stay good.

* A change of the device's marker is a disruption. A maintenance notice is none, and neither is a change of the
  generation counter alone (UAPI.13 calls the two orthogonal).
* A device's marker that goes back is a disruption too, and n goes up with it: what is published never repeats.
* Cold start: the first marker is no disruption, whatever it is.
* Warm start: if the segment's marker differs from the device's by a multiple of 2**32, that multiple is n. If not,
  the machine was disrupted while nobody looked.
"""

from typing import Final, final

__all__ = ("Disruptions", "is_own")

_OWN: Final = 2**32
_U64: Final = 2**64


def is_own(difference: int) -> bool:
    """Whether markers that differ by *difference* do so by disruptions of the publisher's own, at least one."""
    return difference != 0 and difference % _OWN == 0


@final
class Disruptions:
    """The marker to publish and the present epoch.

    Args:
        marker: that of the segment.
        cold: whether nobody can have read it yet.
        epoch: number of the first epoch.
    """

    def __init__(self, marker: int, *, cold: bool, epoch: int = 0) -> None:
        self.epoch = epoch
        self.cold = cold
        """Cleared by the first commit."""
        self._device: int | None = None
        self._base = marker
        self._own = 0

    @property
    def marker(self) -> int:
        """The marker to publish."""
        return (self._base + self._own * _OWN) % _U64

    def device_says(self, marker: int) -> bool:
        """Take the device's *marker*; whether that tells of a disruption."""
        if marker == self._device:
            return False
        first = self._device is None
        if self._device is not None and marker < self._device:
            self._own += 1  # QEMU repeats markers, and readers must see a new one
        published, self._device = self.marker, marker
        self._base = marker
        if first and self.cold:
            return False
        if first and (published - marker) % _OWN == 0:
            self._own = (published - marker) % _U64 // _OWN
            return False
        if first:
            # n is not known; but what was published is, and the next is to be greater.
            self._own = published // _OWN + (marker < published % _OWN) if marker < _OWN else 0
        self.epoch += 1
        return True

    def interrupted(self) -> None:
        """The counter was disrupted on this machine's own account."""
        self._own += 1
        self.epoch += 1

    def promise_broken(self) -> None:
        """An earlier interval proved wrong: a new marker in the same epoch."""
        self._own += 1

    def relayed(self, marker: int) -> None:
        """*marker* was published verbatim."""
        if marker != self.marker and not self.cold:
            self.epoch += 1
        self._device = self._base = marker
        self._own = 0
