"""The server of metrics: a task of its caller's that no client can hold up, on addresses as people write them."""

import errno
import gc
import logging
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from kit.scrapes import samples_in, scrape
from kit.waits import BOUND_S
from vmclock_async._exporting import server
from vmclock_async._exporting.address import parse_address
from vmclock_async.errors import MetricsAddressError
from vmclock_async.metrics import ClockCollector, serve_metrics

ANY_PORT = "127.0.0.1:0"
NOTHING = ClockCollector("/nowhere/shm0", fence=None)


async def scraped(address: str) -> dict[str, float]:
    """The samples that the exporter at *address* gives."""
    return samples_in(await anyio.to_thread.run_sync(scrape, address))


async def exchanged(address: str, request: bytes) -> bytes:
    """All that the server at *address* answers to *request*."""
    host, port = parse_address(address)
    answer = b""
    async with await anyio.connect_tcp(host, port) as stream:
        await stream.send(request)
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            return answer


@pytest.mark.anyio
async def test_scrape_gets_the_metrics() -> None:
    """A collector, or a registry with one, at /metrics, with a query or without."""
    registry = CollectorRegistry()
    registry.register(NOTHING)
    for metrics in (NOTHING, registry):
        with anyio.fail_after(BOUND_S):
            async with serve_metrics(metrics, ANY_PORT) as address:
                assert await scraped(address) == {
                    "vmclock_up": 0,
                    "vmclock_bounded": 0,
                    "vmclock_unbounded_info{SegmentNotInitializedError}": 1,
                }
                assert b" 200 OK\r\n" in await exchanged(
                    address, b"GET /metrics?name=x HTTP/1.1\r\nHost: a\r\n\r\n"
                )


@pytest.mark.anyio
async def test_other_requests_are_refused() -> None:
    """Other paths, other methods; HEAD has the head alone; what is no HTTP gets nothing, and no request too much."""
    with anyio.fail_after(BOUND_S):
        async with serve_metrics(NOTHING, ANY_PORT) as address:
            ask = partial(exchanged, address)
            assert (await ask(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
            assert (await ask(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
            head, _, body = (await ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert body == b""
            for nonsense in (b"\0\xff \r\n\r\n", b"\r\n\r\n", b"GET\r\n\r\n"):
                assert (await ask(nonsense)).startswith(b"HTTP/1.1 40")
            await scraped(address)


@pytest.mark.long
@pytest.mark.anyio
async def test_slow_clients_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than places, which send a byte or nothing, lose their connections; then comes the scrape's turn."""
    monkeypatch.setattr(server, "_LONGEST_S", 0.2)
    clients = [socket.socket() for _ in range(3 * server._MOST_AT_ONCE)]
    with anyio.fail_after(BOUND_S):
        async with serve_metrics(NOTHING, ANY_PORT) as address:
            host, port = parse_address(address)
            for number, client in enumerate(clients):
                client.connect((host, port))
                client.sendall(b"G" * (number % 2))
            assert await scraped(address)
            for client in clients:
                client.settimeout(BOUND_S)
                assert await anyio.to_thread.run_sync(client.recv, 1) == b""
                client.close()


@pytest.mark.anyio
async def test_client_that_goes_away_ends_nothing() -> None:
    """A reset before the request, within it, and while the answer is due."""
    with anyio.fail_after(BOUND_S):
        async with serve_metrics(NOTHING, ANY_PORT) as address:
            host, port = parse_address(address)
            for sent in (b"", b"GET /me", b"GET /metrics HTTP/1.1\r\n\r\n", b"x" * 100_000):
                with socket.socket() as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.connect((host, port))
                    client.sendall(sent)
            assert await scraped(address)


@pytest.mark.anyio
async def test_end_of_block_frees_the_port_and_leaves_no_thread() -> None:
    """Also while a client is connected: the port can be had again at once, and no task, thread or socket is left."""
    with anyio.fail_after(BOUND_S):
        async with serve_metrics(NOTHING, ANY_PORT) as address:
            await scraped(address)
        threads = set(threading.enumerate())
        with socket.socket() as client:
            async with serve_metrics(NOTHING, address):
                host, port = parse_address(address)
                client.connect((host, port))
                client.sendall(b"GET")
                assert set(threading.enumerate()) <= threads  # one that is kept for to_thread.run_sync()
            client.settimeout(BOUND_S)
            with suppress(ConnectionResetError):  # it may not have been accepted yet
                assert client.recv(1) == b""
        async with serve_metrics(NOTHING, address) as again:
            assert again == address
            await scraped(again)
    gc.collect()  # a socket that was left open would warn


@pytest.mark.anyio
async def test_lack_of_descriptors_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be accepted is tried again, because the publisher must go on."""
    monkeypatch.setattr(server, "_PAUSE_S", 0)
    refusals = [OSError(errno.EMFILE, "none left"), OSError(errno.ECONNABORTED, "gone")]

    class Listener:
        async def accept(self) -> str:
            await anyio.lowlevel.checkpoint()
            if refusals:
                raise refusals.pop()
            return "a connection"

    with anyio.fail_after(BOUND_S):
        assert await server._accepted(Listener()) == "a connection"  # type: ignore[arg-type, comparison-overlap]
    assert not refusals


@pytest.mark.anyio
async def test_error_of_the_block_stays_bare() -> None:
    """What the block raises is not wrapped in a group, because a publisher's errors are caught by class."""
    with pytest.raises(KeyError):
        async with serve_metrics(NOTHING, ANY_PORT):
            raise KeyError


class Broken(Collector):
    """A stranger's collector."""

    def collect(self) -> Iterable[Metric]:
        raise LookupError("broken")


@pytest.mark.anyio
async def test_broken_collector_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A registry may hold a stranger's: the scrape fails, and nothing else does. The next ones are counted."""
    with anyio.fail_after(BOUND_S):
        async with serve_metrics(Broken(), ANY_PORT) as address:
            for _ in range(2):
                answer = await exchanged(address, b"GET /metrics HTTP/1.1\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 500 ")
                assert b"broken" not in answer
    assert [record.name for record in caplog.records if record.levelno == logging.ERROR] == [
        "vmclock_async.metrics"
    ]


@pytest.mark.anyio
async def test_address_in_use_is_named() -> None:
    """The error has the address and the errno."""
    async with serve_metrics(NOTHING, ANY_PORT) as address:
        with pytest.raises(MetricsAddressError, match=rf"^{address}: .*EADDRINUSE.*; choose another"):
            async with serve_metrics(NOTHING, address):
                pass
    with pytest.raises(MetricsAddressError, match=r"^192\.0\.2\.1:0: .*EADDRNOTAVAIL"):
        async with serve_metrics(NOTHING, "192.0.2.1:0"):
            pass


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:9123", "127.0.0.1", 9123, "127.0.0.1:9123"),
        (":9123", "127.0.0.1", 9123, "127.0.0.1:9123"),
        ("[::1]:9123", "::1", 9123, "[::1]:9123"),
        ("[::]:0", "::", 0, "[::]:0"),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "0.0.0.0:65535"),
    ],
)
def test_addresses_are_as_people_write_them(text: str, host: str, port: int, shown: str) -> None:
    """IPv4, IPv6 in brackets; a port alone is on loopback."""
    address = parse_address(text)
    assert (address, str(address)) == ((host, port), shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9123",
        ":",
        "::1:9123",
        "[127.0.0.1]:1",
        "[::1]",
        "localhost:9123",
        "1.2.3:9",
        ":65536",
        ":-1",
        "a:1",
        "[]:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """By its text, and with what is expected."""
    with pytest.raises(ValueError, match="is no address to listen on: an IP address and a port"):
        parse_address(text)
