"""Exchanges with NTP servers without any error, to which a test adds one; the counter makes 2 GHz."""

from fractions import Fraction
from typing import Any

from kit.ntp import ntp_timestamp, packet
from vmclock_async.timebase import Rate
from vmclock_ntp.exchange import Exchange
from vmclock_ntp.measure import Sample
from vmclock_ntp.packet import Answer

NS = 10**9
PPM = Fraction(1, 10**6)
NOW_NS = 1_790_000_000 * NS
TICK_NS = Fraction(1, 2)
EXACT = Rate(TICK_NS, Fraction(0))
"""A counter of 2 GHz, known exactly."""
NO_PRECISION = -32
UNIT_NS = Fraction(NS, 2**32)
"""Of a timestamp."""


def exchange(
    *, counter: int = 0, ns: int = NOW_NS, trip_ticks: int = 0, held_ns: int = 0, **fields: Any
) -> Exchange:
    """An exchange that begins at *counter* and takes *trip_ticks*; its server received it at *ns*."""
    said = {
        "stratum": 1,
        "precision": NO_PRECISION,
        "reference": ntp_timestamp(ns - NS),
        "receive": ntp_timestamp(ns),
        "transmit": ntp_timestamp(ns + held_ns),
        **fields,
    }
    answer = Answer.parse(packet(**said))
    assert answer is not None
    return Exchange(counter % 2**64, answer, (counter + trip_ticks) % 2**64)


def sample(**changes: Any) -> Sample:
    """What follows from such an exchange."""
    return Sample(exchange(**changes))
