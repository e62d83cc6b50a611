"""One request to one server, and its answer, between two readings of the counter.

Each request has a socket of its own: connected, so that the kernel drops what other addresses send, and with a port
that the kernel draws (RFC 9109). A datagram that is too short, answers another request or is no server's is dropped,
and the wait goes on: a late or doubled answer, or a forged one, costs nothing.

The counter is read right before the request is sent, and right after the answer is there. A loop that is slow to take
it makes the round trip longer, and the bound with it; it makes no bound wrong.
"""

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple, final

import anyio

from vmclock_async.timebase import counter_ticks, ticks_between
from vmclock_ntp.packet import TOKEN_BYTES, Answer, request

__all__ = ("ANSWERED_WITHIN_S", "Address", "Exchange", "ask", "ask_blocking")

ANSWERED_WITHIN_S: Final = 2.0
"""Longest time, in seconds, to wait for an answer; a later one would give a bound of a second and more."""
_LONGEST_PACKET: Final = 2048

Address = tuple[int, tuple[str | int, ...]]
"""Family and address of a socket, as ``getaddrinfo`` gives them."""


class Exchange(NamedTuple):
    """An answer, and the counter before its request and after it."""

    sent_ticks: int
    answer: Answer
    received_ticks: int

    @property
    def round_trip_ticks(self) -> int:
        """Ticks between the two."""
        return ticks_between(self.sent_ticks, self.received_ticks)


@final
class _Request:
    """A request that was sent over *sock*."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: Final = sock
        self._token: Final = os.urandom(TOKEN_BYTES)
        packet = request(self._token)
        self._sent_ticks: Final = counter_ticks()
        sock.send(packet)

    def take(self) -> Exchange | None:
        """The answer, if the next datagram is it; None if it is another or if there is none."""
        try:
            packet = self._socket.recv(_LONGEST_PACKET)
        except (BlockingIOError, InterruptedError):
            return None
        received_ticks = counter_ticks()
        answer = Answer.parse(packet)
        if answer is None or not answer.answers(self._token):
            return None
        return Exchange(self._sent_ticks, answer, received_ticks)


@contextmanager
def _connected(address: Address) -> Iterator[socket.socket]:
    family, name = address
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(name)  # of a datagram socket: this sends nothing, and does not wait
        yield sock


async def ask(address: Address) -> Exchange | None:
    """Ask the server at *address*; None if no answer came within ``ANSWERED_WITHIN_S``.

    Raises:
        OSError: there is no way there, or nobody listens.
    """
    with _connected(address) as sock, anyio.move_on_after(ANSWERED_WITHIN_S):
        sent = _Request(sock)
        while True:
            await anyio.wait_readable(sock)
            if (exchange := sent.take()) is not None:
                return exchange
    return None


def ask_blocking(addresses: Iterable[Address], within_s: float) -> list[Address]:
    """Those of *addresses* at which a server gives a time; all are asked at once, and this blocks for *within_s*."""
    found = []
    with ExitStack() as stack:
        requests = {}
        for address in addresses:
            with suppress(OSError):  # no way there
                sock = stack.enter_context(_connected(address))
                requests[sock] = address, _Request(sock)
        give_up = time.monotonic() + within_s
        while requests and (left_s := give_up - time.monotonic()) > 0:
            for sock in select.select(requests, [], [], left_s)[0]:
                address, sent = requests[sock]
                try:
                    exchange = sent.take()
                except OSError:  # nobody listens
                    del requests[sock]
                    continue
                if exchange is not None:
                    del requests[sock]
                    if exchange.answer.objection is None:
                        found.append(address)
    return found
