"""The source against a server of its own: its promises, its bound, and what it says where there is no time."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import anyio
import pytest

from clock_source_template import SntpSettings, SntpSource
from clock_source_template.sntp import Exchange
from clock_source_template.source import update_of
from vmclock_async import LeapIndicator, SourceUnavailableError
from vmclock_async.testing import Heard, check_source
from vmclock_async.timebase import Rate

PACKET = struct.Struct("!BBBb II4s QQQQ")
NOW_NS = 1_790_000_000 * 10**9


def timestamp() -> int:
    """This machine's time as NTP has it."""
    return (time.time_ns() + 2_208_988_800 * 10**9 << 32) // 10**9


class Server:
    """Answers on loopback in a thread of its own; *stratum* 0 says that it has no time."""

    def __init__(self, stratum: int = 1) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._stratum = stratum
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            nonce = PACKET.unpack_from(question)[10]
            now = timestamp()
            self._socket.sendto(PACKET.pack(0x24, self._stratum, 0, -20, 0, 66, b"", 0, nonce, now, now), sender)

    def close(self) -> None:
        """Answer nobody any more."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.fixture(params=[1])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server, of a stratum that a test may choose."""
    server = Server(request.param)
    try:
        yield server
    finally:
        server.close()


def source(port: int) -> SntpSource:
    """The source of the server at *port*."""
    return SntpSource(SntpSettings(server="127.0.0.1", port=port, poll_interval=0.1))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_source_keeps_its_promises(server: Server, backend: str) -> None:
    """All that a publisher relies on holds, and what is emitted is a time."""
    if backend == "trio":
        pytest.importorskip("trio")
    updates = anyio.run(check_source, lambda: source(server.port), backend=backend)
    assert any(update.measures for update in updates) or not updates


@pytest.mark.parametrize("server", [0], indirect=True)
def test_server_without_time_is_unavailable(server: Server) -> None:
    """A server that says it has no time is asked again later, by the publisher."""
    with pytest.raises(SourceUnavailableError, match=r"has no time|counter"):
        anyio.run(source(server.port).run, Heard())


def test_bound_has_each_of_its_terms() -> None:
    """Half the round trip, two ticks, the server's root distance and a nanosecond, by the longest tick."""
    exchange = Exchange(
        counter_ticks=5, round_trip_ticks=1000, utc_ns=Fraction(NOW_NS), root_distance_ns=Fraction(70), leap=1
    )
    update = update_of(exchange, Rate(Fraction(1), Fraction(0)))
    assert update.time_maxerror_nanosec == 574  # 502 ticks of 1.0005 ns, 70 and 1: rounded up
    assert (update.counter_value, update.time_sec, update.time_frac_sec) == (5, NOW_NS // 10**9, 0)
    assert update.leap_indicator == LeapIndicator.PRE_POS
