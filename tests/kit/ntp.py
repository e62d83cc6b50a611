"""An NTP server whose truth is known, and is not CLOCK_REALTIME: it proves the signs of what is computed from it.

Packets are laid out as in RFC 5905, section 7.3. It answers on loopback, in a thread of its own, until it is
closed.
"""

import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Self

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


class NtpResponder:
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
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._socket.getsockname()[1]
        return port

    def close(self) -> None:
        """Answer nobody any more."""
        if self._thread.is_alive():
            self._stop.close()
            self._thread.join()
            self._socket.close()
            self._stopped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._stopped in ready:
                    return
                try:
                    request, client = self._socket.recvfrom(1024)
                except BlockingIOError:
                    continue
                if len(request) >= _PACKET.size:
                    self._answer(request, client)

    def _answer(self, request: bytes, client: tuple[str, int]) -> None:
        now_ns = self._now_ns()
        answer = _PACKET.pack(
            _SERVER, 1, request[2], _PRECISION, *self._stated, b"TEST",
            _timestamp(now_ns - 10**9), struct.unpack_from("!Q", request, 40)[0], _timestamp(now_ns),
            _timestamp(self._now_ns()),
        )  # fmt: skip
        if self._reply_delay_s:
            time.sleep(self._reply_delay_s)
        self._socket.sendto(answer, client)

    def _now_ns(self) -> int:
        return self.truth(time.time_ns()) + self._error_ns
