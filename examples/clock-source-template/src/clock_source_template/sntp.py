"""One question to an NTP server, and what its answer says about time (RFC 5905, section 7.3)."""

import os
import struct
from fractions import Fraction
from typing import Final, NamedTuple

import anyio

from vmclock_async.timebase import counter_ticks, ticks_between

__all__ = ("Exchange", "ask")

_PACKET: Final = struct.Struct("!BBBb II4s QQQQ")
_CLIENT: Final = 4 << 3 | 3
"""Version 4, mode client."""
_UNSYNCHRONIZED: Final = 3
_UNIX_EPOCH_S: Final = 2_208_988_800
"""1970 in seconds since 1900."""


class Exchange(NamedTuple):
    """A question and its answer, between two values of the counter."""

    counter_ticks: int
    """The counter in the middle between question and answer."""
    round_trip_ticks: int
    utc_ns: Fraction
    """The server's time in the middle between its receiving and its sending."""
    root_distance_ns: Fraction
    """How far off the server itself may be."""
    leap: int
    """0: no leap second is ahead; 1: one is inserted at the end of the month; 2: one is left out."""


async def ask(host: str, port: int, wait_s: float) -> Exchange:
    """Ask the server once.

    Raises:
        OSError: it cannot be reached, or does not answer within *wait_s* seconds.
        ValueError: it says that it has no time.
    """
    nonce = int.from_bytes(os.urandom(8))  # which the answer repeats, so that a late or forged one is known
    with anyio.fail_after(wait_s):
        async with await anyio.create_connected_udp_socket(host, port) as udp:
            before = counter_ticks()
            await udp.send(_PACKET.pack(_CLIENT, 0, 0, 0, 0, 0, b"", 0, 0, 0, nonce))
            while True:
                answer = await udp.receive()
                after = counter_ticks()
                if len(answer) >= _PACKET.size:
                    fields = _PACKET.unpack_from(answer)
                    if fields[8] == nonce:
                        break
    first, stratum, _, _, delay, dispersion, _, _, _, received, sent = fields
    if first >> 6 == _UNSYNCHRONIZED or stratum == 0:
        raise ValueError(f"the server {host} has no time (leap {first >> 6}, stratum {stratum})")
    trip = ticks_between(before, after)
    return Exchange(
        counter_ticks=(before + trip // 2) % 2**64,
        round_trip_ticks=trip,
        utc_ns=(_utc_ns(received) + _utc_ns(sent)) / 2,
        root_distance_ns=Fraction((delay + 2 * dispersion) * 10**9, 2**17),  # half the delay; units of 2**-16 s
        leap=first >> 6,
    )


def _utc_ns(timestamp: int) -> Fraction:
    """Nanoseconds since 1970 of *timestamp*, in units of 2**-32 s since 1900 or, from 2036 on, since 2036."""
    return Fraction((timestamp - (_UNIX_EPOCH_S << 32)) % 2**64 * 10**9, 2**32)
