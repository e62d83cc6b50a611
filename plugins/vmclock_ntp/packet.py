"""NTP packets: 48 bytes, as RFC 5905, section 7.3, lays them out. Nothing here waits or looks at a clock.

The layout is written out here, because the libraries on offer (ntplib is the known one) turn timestamps into floats of
epoch seconds. Those resolve 240 ns, lose the origin timestamp that a client has to compare bit by bit, and read the
system clock. A struct of 48 bytes is less code than the way around that.

A request has a random transmit timestamp, and zeros in all other fields but the version and the mode: a server needs
no more, and learns nothing of the client's clock (draft-ietf-ntp-data-minimization). The answer repeats these 64 bits
as its origin timestamp, so whoever did not see the request cannot forge an answer.

A timestamp counts seconds modulo 2**32 since 1900, and begins again in 2036. It is taken for the one time from 2020 to
2156 that it may mean; this machine's clock is not asked.
"""

import struct
from fractions import Fraction
from typing import Final, NamedTuple, Self

__all__ = ("TOKEN_BYTES", "Answer", "request", "utc_ns")

TOKEN_BYTES: Final = 8
"""Length of a transmit timestamp."""

_LAYOUT: Final = struct.Struct("!BBbbII4s8s8s8s8s")
_CLIENT: Final = 0x23
"""No leap indicator, version 4, mode 3: client."""
_SERVER_MODE: Final = 4
_VERSIONS: Final = (3, 4)
_UNSYNCHRONIZED: Final = 3
_MAX_STRATUM: Final = 16
_MAX_DISTANCE_NS: Final = 10**9
"""A server that may be farther off is refused: MAXDIST of RFC 5905, appendix A.1.1, which is 1 s."""
_MAX_REFERENCE_AGE_NS: Final = 86_400 * 10**9
"""A server that nobody has corrected for longer is refused: NTP.MAXAGE of RFC 1305, section 3.2, which is a day."""
_OWN_CLOCK: Final = (b"\x7f\x7f\x01", b"LOCL")
"""Beginnings of the reference id of a server that follows its own clock for lack of another: 127.127.1.1 of chronyd
(``local``), LOCL of ntpd's local clock. It claims to have no error. (ntpsec in orphan mode has no reference time.)"""
_FINEST_PRECISION: Final = -32
"""A timestamp has no finer digits."""
_NTP_EPOCH_S: Final = 2_208_988_800
"""1900 to 1970, in seconds: RFC 5905, figure 4."""
_PIVOT_S: Final = 1_577_836_800
"""2020-01-01, in seconds since 1970. No packet is from before, because this program is younger."""


def request(token: bytes) -> bytes:
    """A request whose transmit timestamp is *token*, ``TOKEN_BYTES`` random bytes."""
    nothing = bytes(8)
    return _LAYOUT.pack(_CLIENT, 0, 0, 0, 0, 0, bytes(4), nothing, nothing, nothing, token)


def utc_ns(timestamp: bytes) -> Fraction:
    """UTC of an NTP timestamp, exact nanoseconds since 1970: the one from 2020 to 2156."""
    units = int.from_bytes(timestamp, "big")
    since_pivot = (units - (_NTP_EPOCH_S + _PIVOT_S << 32)) % 2**64
    return _PIVOT_S * 10**9 + Fraction(since_pivot * 10**9, 2**32)


class Answer(NamedTuple):
    """The fields of a packet; timestamps are as they came."""

    leap: int
    version: int
    mode: int
    stratum: int
    precision: int
    """Resolution of the server's clock, log2 of seconds."""
    root_delay: int
    """In units of 2**-16 s, as the next."""
    root_dispersion: int
    reference_id: bytes
    reference: bytes
    origin: bytes
    receive: bytes
    transmit: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Self | None:
        """The answer in *packet*; None if it is too short. What follows the header (extensions, a MAC) is ignored."""
        if len(packet) < _LAYOUT.size:
            return None
        first, stratum, _, precision, delay, dispersion, *rest = _LAYOUT.unpack_from(packet)
        return cls(first >> 6, first >> 3 & 7, first & 7, stratum, precision, delay, dispersion, *rest)

    def answers(self, token: bytes) -> bool:
        """Whether a server sent this, and the request with *token* is what it answers."""
        return self.origin == token and self.mode == _SERVER_MODE and self.version in _VERSIONS

    @property
    def kiss_code(self) -> str | None:
        """The code of a kiss-o'-death packet (RFC 5905, section 7.4), such as ``RATE``; None if this is none."""
        if self.stratum:
            return None
        code = self.reference_id.decode("latin-1").rstrip("\0 ")
        return "".join(letter if letter.isascii() and letter.isalnum() else "?" for letter in code)

    @property
    def receive_ns(self) -> Fraction:
        """UTC when the request came, by the server, nanoseconds since 1970."""
        return utc_ns(self.receive)

    @property
    def transmit_ns(self) -> Fraction:
        """UTC when the answer went, by the server."""
        return utc_ns(self.transmit)

    @property
    def held_ns(self) -> Fraction:
        """The time from one to the other."""
        return self.transmit_ns - self.receive_ns

    @property
    def root_delay_ns(self) -> Fraction:
        """The round trip from the server to its reference."""
        return Fraction(self.root_delay * 10**9, 2**16)

    @property
    def root_dispersion_ns(self) -> Fraction:
        """The server's own error, as it states it, besides that of the round trip."""
        return Fraction(self.root_dispersion * 10**9, 2**16)

    @property
    def precision_ns(self) -> Fraction:
        """The resolution of the server's clock."""
        return Fraction(10**9) * Fraction(2) ** max(self.precision, _FINEST_PRECISION)

    @property
    def objection(self) -> str | None:
        """Why the time of this answer is not used, in words; None if it is."""
        if self.kiss_code is not None:
            return f"it gives no time ({self.kiss_code or 'stratum 0'})"
        if self.leap == _UNSYNCHRONIZED:
            return "it is not synchronized (leap indicator 3)"
        if self.stratum >= _MAX_STRATUM:
            return f"it is not synchronized (stratum {self.stratum})"
        if self.stratum > 1 and self.reference_id.startswith(_OWN_CLOCK):
            return f"it follows no other clock than its own (stratum {self.stratum})"
        if not any(self.receive) or not any(self.transmit):
            return "it sends no time (a timestamp of zero)"
        if not any(self.reference):
            return "nothing has ever corrected it (its reference time is zero)"
        if self.held_ns < 0:
            return f"its answer went {float(-self.held_ns) / 1e9:g} s before the request came"
        distance_ns = self.root_delay_ns / 2 + self.root_dispersion_ns + self.precision_ns
        if distance_ns >= _MAX_DISTANCE_NS:
            return f"it may itself be off by {float(distance_ns) / 1e9:.3g} s"
        age_ns = self.transmit_ns - utc_ns(self.reference)
        if age_ns < 0:
            return f"its reference time is {float(-age_ns) / 1e9:g} s ahead of its own time"
        if age_ns > _MAX_REFERENCE_AGE_NS:
            return f"nothing has corrected it for {float(age_ns) / 3.6e12:.0f} hours"
        return None
