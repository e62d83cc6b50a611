"""An NTP server whose truth is known, and is not CLOCK_REALTIME: it proves the signs of what is computed from it.

Packets are laid out as in RFC 5905, section 7.3. It answers on loopback, in a thread of its own, until it is
closed.
"""

import struct
import time
from collections.abc import Callable
from typing import Final

from kit.udp import UdpServer

_PACKET: Final = struct.Struct("!BBBb II4s QQQQ")
_NTP_EPOCH_S: Final = 2_208_988_800
_SERVER: Final = 0x24
"""No leap announced, version 4, mode server."""
_PRECISION: Final = -20

Truth = Callable[[int], int]
"""True time by CLOCK_REALTIME, both nanoseconds since 1970."""


def _timestamp(ns: int) -> int:
    return (ns + _NTP_EPOCH_S * 10**9 << 32) // 10**9


def _short(ns: int) -> int:
    return (ns << 16) // 10**9


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
        self._stated = _short(root_delay_ns), _short(root_dispersion_ns)
        self._reply_delay_s = reply_delay_ns / 1e9
        super().__init__()

    def _answer(self, request: bytes) -> bytes | None:
        if len(request) < _PACKET.size:
            return None
        now_ns = self._now_ns()
        answer = _PACKET.pack(
            _SERVER, 1, request[2], _PRECISION, *self._stated, b"TEST",
            _timestamp(now_ns - 10**9), struct.unpack_from("!Q", request, 40)[0], _timestamp(now_ns),
            _timestamp(self._now_ns()),
        )  # fmt: skip
        if self._reply_delay_s:
            time.sleep(self._reply_delay_s)
        return answer

    def _now_ns(self) -> int:
        return self.truth(time.time_ns()) + self._error_ns
