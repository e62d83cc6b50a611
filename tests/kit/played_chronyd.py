"""A chronyd whose reports are the test's: it answers on its command port, at 127.0.0.1, from a thread of its own.

Packets as in chrony's candm.h, protocol version 6.
"""

import math
import struct
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kit.udp import UdpServer

_REQUEST: Final = struct.Struct("!BBBBHHI")
_REPLY: Final = struct.Struct("!BBBBHHHHHHIII")
_SUCCESS: Final = 0
_N_SOURCES, _SOURCE_DATA, _TRACKING, _SOURCESTATS = 14, 15, 33, 34
_REPLIES: Final = {_N_SOURCES: 2, _SOURCE_DATA: 3, _TRACKING: 5, _SOURCESTATS: 6}
_LOOPBACK: Final = bytes([127, 0, 0, 1, *[0] * 12, 0, 1, 0, 0])
_NO_ADDRESS: Final = bytes(20)
"""As of a reference clock."""


def _float(value: float) -> bytes:
    """chrony's Float: 7 bits of exponent, 25 of coefficient."""
    mantissa, exponent = math.frexp(value)
    coefficient = round(mantissa * 2**24)
    return struct.pack("!I", ((exponent + 1) % 2**7) << 25 | coefficient % 2**25)


class PlayedSource(NamedTuple):
    """One time source, as the reports ``sources`` and ``sourcestats`` have it."""

    span_s: int
    last_sample_ago_s: int
    state: int = 0
    """Selected."""


class PlayedChronyd(UdpServer):
    """Says that it is synchronized, a moment ago, to within a millisecond, or what else it is told to say."""

    def __init__(self, port: int = 0) -> None:
        self.sources: list[PlayedSource] = []
        self.asked = 0
        """Requests for ``tracking`` so far."""
        self.before_answer: Callable[[], None] = lambda: None
        """Called when ``tracking`` was asked for, before it is answered."""
        self.before_count: Callable[[], None] = lambda: None
        """Called when it was asked how many sources it has, for either report of them, before it answers."""
        self._said: dict[str, Any] = {}
        super().__init__(port)

    @property
    def address(self) -> str:
        """Its command port."""
        return f"127.0.0.1:{self.port}"

    def say(self, **fields: Any) -> None:
        """Say so from now on, in seconds and ppm; ``age_s`` stands for the reference time.

        Bytes stand for a float as the wire has it.
        """
        self._said = {**self._said, **fields}

    def follow_reference_clock(self, name: bytes) -> None:
        """Say from now on that it follows a ``refclock`` called *name*."""
        self.say(reference_id=int.from_bytes(name.ljust(4, b"\0"), "big"), stratum=1, address=_NO_ADDRESS)

    def _tracking(self) -> bytes:
        said: dict[str, Any] = {
            "reference_id": 0x7F000001, "address": _LOOPBACK, "stratum": 2, "leap": 0, "age_s": 0.0, "ref_time": None,
            "offset": 0.0, "last_offset": 0.0, "rms_offset": 1e-6, "frequency": 0.0, "residual_freq": 0.0,
            "skew": 0.1, "root_delay": 1e-4, "root_dispersion": 1e-4, "update_interval": 1.0, **self._said,
        }  # fmt: skip
        ref_ns = said["ref_time"] or time.time_ns() - round(said["age_s"] * 10**9)
        names = (
            "offset", "last_offset", "rms_offset", "frequency", "residual_freq", "skew", "root_delay",
            "root_dispersion", "update_interval",
        )  # fmt: skip
        seconds, nanoseconds = divmod(ref_ns, 10**9)
        return b"".join(
            (
                struct.pack("!I", said["reference_id"]), said["address"],
                struct.pack("!HHIII", said["stratum"], said["leap"], seconds >> 32, seconds % 2**32, nanoseconds),
                *(said[name] if isinstance(said[name], bytes) else _float(said[name]) for name in names),
            )
        )  # fmt: skip

    def _source_data(self, source: PlayedSource) -> bytes:
        numbers = struct.pack("!hHHHHHI", 0, 1, source.state, 0, 0, 0o377, source.last_sample_ago_s)
        return _LOOPBACK + numbers + _float(0.0) * 3

    def _source_statistics(self, source: PlayedSource) -> bytes:
        return (
            struct.pack("!I", 0x7F000001) + _LOOPBACK + struct.pack("!III", 8, 4, source.span_s) + _float(0.0) * 5
        )

    def _answer(self, request: bytes) -> bytes:
        version, _, _, _, command, _, sequence = _REQUEST.unpack_from(request)
        if command == _TRACKING:
            self.asked += 1
            self.before_answer()
            data = self._tracking()
        elif command == _N_SOURCES:
            self.before_count()
            data = struct.pack("!I", len(self.sources))
        else:
            source = self.sources[struct.unpack_from("!I", request, 20)[0]]
            data = self._source_data(source) if command == _SOURCE_DATA else self._source_statistics(source)
        header = _REPLY.pack(version, 2, 0, 0, command, _REPLIES[command], _SUCCESS, 0, 0, 0, sequence, 0, 0)
        return header + data
