"""``Heard``: an ``Emit`` that keeps what a source says."""

import os
import tempfile

import anyio.lowlevel

from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Emit

__all__ = ("Heard",)


class Heard(Emit):
    """An ``Emit`` for a test of a source: it keeps what the source says. Override ``__call__`` to act on an update.

    Args:
        segment: path that the source sees as the segment's; nothing is there.
    """

    def __init__(self, segment: str | os.PathLike[str] | None = None) -> None:
        self._segment = os.fspath(segment or os.path.join(tempfile.gettempdir(), "no-segment"))
        self._epoch = 0
        self.updates: list[BodyUpdate] = []
        """The updates, in order."""
        self.epochs: list[int | None] = []
        """The epoch that came with each update."""
        self.disruptions: list[tuple[str, bool]] = []
        """The reason of each reported disruption, and whether it was a restore."""
        self.announces_restores = False
        """Whether the source has announced that it reports each restore."""

    @property
    def epoch(self) -> int:
        """Number of the present epoch; each reported disruption begins another, and so does a test that sets it."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = number

    @property
    def segment(self) -> str:
        return self._segment

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        self.updates.append(update)
        self.epochs.append(epoch)

    async def disrupt(self, reason: str, *, restored: bool = False) -> None:
        await anyio.lowlevel.checkpoint()
        self.disruptions.append((reason, restored))
        self._epoch += 1

    async def announce_restores(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.announces_restores = True
