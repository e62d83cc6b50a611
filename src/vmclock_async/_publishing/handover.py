"""Handing messages from the sources' tasks to the writer task: without a buffer, so that none grows old.

``send`` returns once the writer has taken the message. anyio's memory object stream does the same and more, but needs
twice as many turns of the loop: here a message costs its sender one checkpoint, in which the writer takes it.

Cancelling loses nothing: a message is the sender's until it is taken, and the writer's from then on. Waiting messages
are taken in the order in which they came.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from types import coroutine
from typing import Final, Generic, TypeVar, final

import anyio
import anyio.lowlevel

from vmclock_async._segment.descriptor import loop_of_asyncio

__all__ = ("Handover",)

_T = TypeVar("_T")


@final
@dataclass(slots=True, eq=False)
class _Offer(Generic[_T]):
    message: _T
    is_taken: bool = False
    settled: anyio.Event | None = None
    """Made by a sender that waits: it is set when the message is taken, or never will be."""


@coroutine
def _asyncio_turn() -> Generator[None, None, None]:
    """anyio's checkpoint on asyncio, where it is ``asyncio.sleep(0)``, without asking each time which loop runs.

    The question takes a twentieth of an update's way to the page.
    """
    yield


@final
class Handover(Generic[_T]):
    """Connects *senders* tasks, each of which says when it is done, with the one task that receives."""

    def __init__(self, senders: int) -> None:
        self._senders = senders
        self._offers: Final[deque[_Offer[_T]]] = deque()
        self._pending: Final = anyio.Semaphore(0, fast_acquire=True)
        """Released for each offer, and for each sender that is done. An offer may have been withdrawn since."""
        self._is_closed = False
        self._turn: Final = anyio.lowlevel.checkpoint if loop_of_asyncio() is None else _asyncio_turn

    async def send(self, message: _T) -> None:
        """Hand over *message*.

        Raises:
            anyio.BrokenResourceError: the receiver has closed, and has not taken the message.
        """
        if self._is_closed:
            await anyio.lowlevel.checkpoint()
            raise anyio.BrokenResourceError
        offer = _Offer(message)
        self._offers.append(offer)
        self._pending.release()
        try:
            await self._turn()
            if not (offer.is_taken or self._is_closed):  # the receiver is busy, or its turn comes later
                offer.settled = anyio.Event()
                await offer.settled.wait()
        finally:
            if not offer.is_taken and not self._is_closed:
                self._offers.remove(offer)  # the sender is cancelled
        if not offer.is_taken:
            raise anyio.BrokenResourceError

    async def receive(self) -> _T:
        """The next message.

        Raises:
            anyio.EndOfStream: every sender is done.
        """
        await self._pending.acquire()
        while not self._offers:
            if not self._senders:
                raise anyio.EndOfStream
            await self._pending.acquire()
        offer = self._offers.popleft()
        offer.is_taken = True
        if offer.settled is not None:
            offer.settled.set()
        return offer.message

    def sender_is_done(self) -> None:
        """Note that one of the senders sends nothing more."""
        self._senders -= 1
        self._pending.release()

    def close(self) -> None:
        """Receive nothing more: waiting messages are refused, and so are messages sent from now on."""
        self._is_closed = True
        for offer in self._offers:
            if offer.settled is not None:
                offer.settled.set()
        self._offers.clear()
