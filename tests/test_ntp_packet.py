"""NTP's packets: what a request gives away, what an answer says, and which answers are of no use."""

import datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kit.ntp import NTP_EPOCH_S, ntp_timestamp, packet
from vmclock_ntp.packet import Answer, request, utc_ns

NS = 10**9
NOW_NS = 1_790_000_000 * NS


def utc_s(year: int, month: int = 1, day: int = 1) -> int:
    return int(datetime.datetime(year, month, day, tzinfo=datetime.UTC).timestamp())


def answer(**changes: Any) -> Answer:
    """A good answer, but for *changes*."""
    times = {"reference": ntp_timestamp(NOW_NS - NS), "receive": ntp_timestamp(NOW_NS)}
    fields = {"stratum": 2, "transmit": ntp_timestamp(NOW_NS + 1000), **times, **changes}
    parsed = Answer.parse(packet(**fields))
    assert parsed is not None
    return parsed


def test_request_tells_nothing_of_the_client() -> None:
    """Version 4 and mode 3, the random token as its transmit timestamp, and zeros."""
    assert request(b"\x01\x02\x03\x04\x05\x06\x07\x08") == bytes([0x23, *[0] * 39, 1, 2, 3, 4, 5, 6, 7, 8])


def test_fields_are_where_rfc_5905_has_them() -> None:
    """Each field of a packet that differs in all of them, with an extension behind it."""
    raw = bytes.fromhex(
        "e4 02 06 e9 00000180 00000240 c0a80001"
        "0102030405060708 1112131415161718 2122232425262728 3132333435363738 ffff0000"
    )
    parsed = Answer.parse(raw)
    assert parsed is not None
    assert (parsed.leap, parsed.version, parsed.mode, parsed.stratum, parsed.precision) == (3, 4, 4, 2, -23)
    assert parsed.root_delay_ns == Fraction(0x180 * NS, 65536)
    assert parsed.root_dispersion_ns == Fraction(0x240 * NS, 65536)
    assert parsed.precision_ns == Fraction(NS, 2**23)
    assert parsed.reference_id == bytes([192, 168, 0, 1])
    names = ("reference", "origin", "receive", "transmit")
    assert [getattr(parsed, name)[0] for name in names] == [0x01, 0x11, 0x21, 0x31]
    assert Answer.parse(raw[:47]) is None


@given(st.integers(utc_s(2020) * NS, (utc_s(2020) + 2**32) * NS - 1))
def test_timestamp_is_the_time_from_2020_to_2156(ns: int) -> None:
    """It comes back to within a unit of 2**-32 s, on both sides of 2036."""
    assert 0 <= ns - utc_ns(ntp_timestamp(ns).to_bytes(8, "big")) < Fraction(NS, 2**32)


def test_timestamps_begin_again_in_2036() -> None:
    """The last second of the first era, the first of the second, and the pivot's two sides."""
    for seconds in (utc_s(2036, 2, 7), utc_s(2036, 2, 8), utc_s(2020), utc_s(2020) + 2**32 - 1):
        assert utc_ns(((seconds + NTP_EPOCH_S) % 2**32 << 32).to_bytes(8, "big")) == seconds * NS


def test_answer_belongs_to_its_request() -> None:
    """Of a server, version 3 or 4, with the request's token as its origin; any other is dropped."""
    token = (2**63 + 5).to_bytes(8, "big")
    assert answer(origin=2**63 + 5).answers(token)
    assert answer(origin=2**63 + 5, version=3).answers(token)
    for change in ({"origin": 2**63 + 4}, {"origin": 0}, {"mode": 3}, {"mode": 5}, {"version": 2}, {"version": 5}):
        assert not answer(**{"origin": 2**63 + 5, **change}).answers(token), change


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"leap": 3}, "leap indicator 3"),
        ({"stratum": 16}, "stratum 16"),
        ({"stratum": 255}, "stratum 255"),
        ({"stratum": 0, "reference_id": b"INIT"}, "INIT"),
        ({"stratum": 0, "reference_id": bytes(4)}, "stratum 0"),
        ({"reference_id": b"\x7f\x7f\1\1"}, "its own (stratum 2)"),
        ({"reference_id": b"LOCL", "stratum": 10}, "its own (stratum 10)"),
        ({"receive": 0}, "timestamp of zero"),
        ({"transmit": 0}, "timestamp of zero"),
        ({"reference": 0}, "nothing has ever corrected it"),
        ({"transmit": ntp_timestamp(NOW_NS - 1000)}, "before the request came"),
        ({"root_delay": 2 * 65536}, "off by 1 s"),
        ({"root_dispersion": 65536}, "off by 1 s"),
        ({"precision": 0}, "off by 1 s"),
        ({"reference": ntp_timestamp(NOW_NS + NS)}, "ahead of its own time"),
        ({"reference": ntp_timestamp(NOW_NS - 86_401 * NS)}, "for 24 hours"),
    ],
)
def test_answers_of_no_use_are_refused(changes: dict[str, Any], why: str) -> None:
    """Each alone, in words that say which it is."""
    objection = answer(**changes).objection
    assert objection is not None
    assert why in objection


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"leap": 2},
        {"stratum": 15},
        {"stratum": 1, "reference_id": b"\x7f\x7f\1\1"},
        {"reference_id": b"\x7f\0\0\1"},
        {"root_delay": 2 * 65536 - 4},
        {"precision": -128},
        {"reference": ntp_timestamp(NOW_NS - 86_399 * NS)},
        {"transmit": ntp_timestamp(NOW_NS)},
    ],
)
def test_good_answers_are_taken(changes: dict[str, Any]) -> None:
    """A leap second that is announced, the last good stratum, and the limits' good sides."""
    assert answer(**changes).objection is None


@pytest.mark.parametrize("code", ["DENY", "RSTR", "RATE", "X"])
def test_kiss_codes_are_read(code: str) -> None:
    """From the reference id of a packet of stratum 0, and of no other."""
    assert answer(stratum=0, reference_id=code.encode().ljust(4, b"\0")).kiss_code == code
    assert answer(stratum=1, reference_id=code.encode().ljust(4, b"\0")).kiss_code is None


def test_kiss_code_cannot_forge_a_line_of_the_log() -> None:
    """Whatever is no letter or digit of ASCII is a question mark."""
    assert answer(stratum=0, reference_id=b"\n\x1bA\xc4").kiss_code == "??A?"
