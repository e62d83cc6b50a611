"""An NTP server whose truth is known, and is not CLOCK_REALTIME: it proves the signs of what is computed from it.

Packets are laid out as in RFC 5905, section 7.3. It answers on loopback, in a thread of its own, until it is
closed. It can also lie, in any field, and lose, delay and double packets, or send others beside them.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kit.udp import UdpServer

_PACKET: Final = struct.Struct("!BBBb II4s QQQQ")
NTP_EPOCH_S: Final = 2_208_988_800
_PRECISION: Final = -20

Truth = Callable[[int], int]
"""True time by CLOCK_REALTIME, both nanoseconds since 1970."""


def ntp_timestamp(ns: int) -> int:
    return ((ns + NTP_EPOCH_S * 10**9 << 32) // 10**9) % 2**64


def _short(ns: int) -> int:
    return (ns << 16) // 10**9


def packet(**fields: Any) -> bytes:
    """A server's packet of zeros, but for *fields*: 64-bit timestamps, statements in units of 2**-16 s."""
    said = {
        "leap": 0, "version": 4, "mode": 4, "stratum": 1, "poll": 0, "precision": _PRECISION, "root_delay": 0,
        "root_dispersion": 0, "reference_id": b"TEST", "reference": 0, "origin": 0, "receive": 0, "transmit": 0,
        **fields,
    }  # fmt: skip
    first = said["leap"] << 6 | said["version"] << 3 | said["mode"]
    names = (
        "stratum", "poll", "precision", "root_delay", "root_dispersion", "reference_id", "reference", "origin",
        "receive", "transmit",
    )  # fmt: skip
    return _PACKET.pack(first, *(said[name] for name in names))


class Heard(NamedTuple):
    """A request."""

    at_s: float
    """When it came, by ``time.monotonic``."""
    packet: bytes


class NtpResponder(UdpServer):
    """Serves *truth*, off by *error_ns*, which its stated root delay and dispersion cover.

    Args:
        truth: what its clock says, but for the error.
        error_ns: by how much it is ahead of true time.
        root_delay_ns: stated.
        root_dispersion_ns: stated.
        reply_delay_ns: how much longer the way back is than the way there.
    """

    def __init__(
        self,
        truth: Truth,
        *,
        error_ns: int = 0,
        root_delay_ns: int = 0,
        root_dispersion_ns: int = 0,
        reply_delay_ns: int = 0,
    ) -> None:
        self.truth = truth
        self._error_ns = error_ns
        self._stated = {"root_delay": _short(root_delay_ns), "root_dispersion": _short(root_dispersion_ns)}
        self._reply_delay_s = reply_delay_ns / 1e9
        self.heard: list[Heard] = []
        self.says: dict[str, Any] = {}
        """Fields with other values than true ones; a function is called with the true value."""
        self.is_silent = False
        self.before: Callable[[bytes], list[bytes]] = lambda answer: []
        """Datagrams to send before the answer that it is given."""
        self.times = 1
        """How often it sends each answer."""
        self.from_elsewhere = False
        """Whether it answers from another port than the one that was asked."""
        super().__init__()

    @property
    def name(self) -> str:
        """Its address, as the setting of the ntp source has it."""
        return f"127.0.0.1:{self.port}"

    def _reply(self, request: bytes, client: tuple[str, int]) -> None:
        answer = self._answer(request)
        if answer is None:
            return
        self.heard.append(Heard(time.monotonic(), request))
        if self.is_silent:
            return
        for datagram in [*self.before(answer), *[answer] * self.times]:
            if self.from_elsewhere:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind(("127.0.0.1", 0))
                    other.sendto(datagram, client)
            else:
                self._socket.sendto(datagram, client)

    def _answer(self, request: bytes) -> bytes | None:
        if len(request) < _PACKET.size:
            return None
        now_ns = self._now_ns()
        said: dict[str, Any] = {
            "poll": request[2], **self._stated, "reference": ntp_timestamp(now_ns - 10**9),
            "origin": struct.unpack_from("!Q", request, 40)[0], "receive": ntp_timestamp(now_ns),
            "transmit": ntp_timestamp(self._now_ns()),
        }  # fmt: skip
        for name, lie in self.says.items():
            said[name] = lie(said[name]) if callable(lie) else lie
        answer = packet(**said)
        if self._reply_delay_s:
            time.sleep(self._reply_delay_s)
        return answer

    def _now_ns(self) -> int:
        return self.truth(time.time_ns()) + self._error_ns
