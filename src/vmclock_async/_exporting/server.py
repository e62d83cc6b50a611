"""A server of metrics for scrapes: ``GET /metrics``, one answer a connection.

prometheus-client has a server too. It gives each connection a thread, without a limit of number or time, so clients
that connect and say nothing take the descriptors and the memory of the publisher for good; and its threads outlive the
block that started them. This one is a task of the caller's:

* It serves at most ``_MOST_AT_ONCE`` connections, each for at most ``_LONGEST_S``; others wait in the kernel's queue.
* Metrics are collected in a worker thread, because opening a segment may block.
* When the block ends, its tasks have ended, and the port is free.
"""

import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute, SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from vmclock_async._exporting.address import Address, parse_address
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._reading.background import beside
from vmclock_async._wording import failure
from vmclock_async.errors import MetricsAddressError

__all__ = ("serve_metrics",)

_MOST_AT_ONCE: Final = 8
_LONGEST_S: Final = 5.0
_LONGEST_REQUEST: Final = 16384
"""Bytes of a request with its header."""
_PAUSE_S: Final = 0.1
"""Time, in seconds, before the next try where no connection can be accepted, as when descriptors are used up."""
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_GONE: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.DelimiterNotFound,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    OSError,
)
"""Errors of a client that went away, or does not speak HTTP."""

_log: Final = logging.getLogger("vmclock_async.metrics")


@asynccontextmanager
async def serve_metrics(metrics: Collector | CollectorRegistry, address: str = ":9123") -> AsyncIterator[str]:
    """Serve *metrics* at ``http://ADDRESS/metrics`` for the length of the block, which gets the address.

    A client that is slow, or says nothing, neither holds up the event loop nor keeps its connection. There is neither
    encryption nor a password: an address other than loopback shows the metrics to all who reach it.

    Args:
        metrics: a collector of this module, or a registry that has one.
        address: an IP address and a port: ``127.0.0.1:9123``, ``[::1]:9123``; ``:9123`` is on loopback; port 0 is one
            that is free, and the block gets its number.

    Raises:
        ValueError: *address* has another form.
        MetricsAddressError: it cannot be listened on.
    """
    host, port = parse_address(address)
    try:
        listeners = await anyio.create_tcp_listener(local_host=host, local_port=port)
    except OSError as exc:
        raise MetricsAddressError(_refusal(Address(host, port), exc)) from exc
    async with listeners:
        (listener,) = listeners.listeners
        assert isinstance(listener, SocketListener)
        bound = Address(host, listener.extra(SocketAttribute.local_port))
        async with beside(partial(_serve, listener, metrics)):
            yield str(bound)


def _refusal(address: Address, error: OSError) -> str:
    # asyncio words its own message, and may lose the name of the error.
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    return f"{address}: metrics cannot be served here ({name}: {os.strerror(number)}); choose another address"


async def _serve(listener: SocketListener, metrics: Collector | CollectorRegistry) -> None:
    places = anyio.Semaphore(_MOST_AT_ONCE)
    threads = anyio.CapacityLimiter(1)  # its own, because sources may take all of the default one's
    complaints = Complaints(_log)

    async def answer(stream: SocketStream) -> None:
        try:
            with anyio.move_on_after(_LONGEST_S):
                async with stream:
                    request = BufferedByteReceiveStream(stream)
                    await stream.send(await _answer(request, metrics, threads, complaints))
        except _GONE:
            pass
        finally:
            places.release()

    async with anyio.create_task_group() as tasks:
        while True:
            await places.acquire()
            tasks.start_soon(answer, await _accepted(listener))


async def _accepted(listener: SocketListener) -> SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError:  # no descriptor is left, or the client is gone already
            await anyio.sleep(_PAUSE_S)


async def _answer(
    request: BufferedByteReceiveStream,
    metrics: Collector | CollectorRegistry,
    threads: anyio.CapacityLimiter,
    complaints: Complaints,
) -> bytes:
    complaints.say_what_is_due()
    head = await request.receive_until(b"\r\n\r\n", _LONGEST_REQUEST)
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", "use GET\n", "Allow: GET, HEAD")
    if path != b"/metrics":
        return _response("404 Not Found", "the metrics are at /metrics\n")
    try:
        text = await anyio.to_thread.run_sync(generate_latest, metrics, limiter=threads)
    except Exception as exc:  # a registry may hold collectors of strangers
        said = f"the metrics could not be collected: {failure(exc)}"
        if not complaints.holds_back("the metrics", "failed scrape", lambda: said, level=logging.ERROR):
            _log.exception("the metrics could not be collected")
        return _response("500 Internal Server Error", "the log says why the metrics could not be collected\n")
    response = _response("200 OK", text.decode(), content_type=_CONTENT_TYPE)
    return response if method == b"GET" else response[: -len(text)]


def _response(status: str, text: str, *lines: str, content_type: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *lines,
    )
    return "\r\n".join((*head, "", "")).encode() + body
