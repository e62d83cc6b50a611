"""The example of a service: what it stamps, when it refuses and drains, in this process and under uvicorn.

FastAPI and httpx are imported where they are used, because pytest imports this module in each of its processes.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kit.examples import EXAMPLES, Start, ended, line_of, on, started_examples
from kit.waits import eventually
from vmclock_async import TimeInterval
from vmclock_async.testing import PlayedSegment

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the example of a name with arguments, its output in pipes; killed when the test ends."""
    with started_examples() as start:
        yield start


@pytest.fixture
def create_app() -> Callable[..., FastAPI]:
    """``fastapi_service.create_app``."""
    spec = importlib.util.spec_from_file_location("fastapi_service", EXAMPLES / "fastapi_service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory: Callable[..., FastAPI] = module.create_app
    return factory


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client of *app* in this process."""
    import httpx

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


def lifespan_of(app: FastAPI) -> AbstractAsyncContextManager[Any]:
    """What a server runs *app* in; httpx does not."""
    return app.router.lifespan_context(app)


async def health(client: httpx.AsyncClient, state: str) -> int:
    """The status with which the service says that its state is *state*, once it does."""
    while (response := await client.get("/health")).json()["state"] != state:
        await anyio.sleep(0.005)
    return response.status_code


@pytest.mark.anyio
async def test_service_stamps(create_app: Callable[..., FastAPI], segment: PlayedSegment) -> None:
    """Each response, and each note, carries an interval that contains the time at which it was made."""
    app = create_app(str(segment.path), fence=str(segment.device))
    with anyio.fail_after(10):
        async with lifespan_of(app), client_of(app) as client:
            before_ns = time.time_ns()
            written = await client.post("/notes", json="hello")
            after_ns = time.time_ns()
            assert written.status_code == 201
            assert (await client.get("/notes")).json() == [written.json()]
            assert (await client.get("/openapi.json")).status_code == 200
            stamp = int(written.headers["Clock-Earliest-Ns"]), int(written.headers["Clock-Latest-Ns"])
            for interval in (TimeInterval(*stamp), TimeInterval(**written.json()["at"])):
                assert interval.earliest_ns < after_ns
                assert interval.latest_ns > before_ns
                assert interval.error_ns < 10_000_000


@pytest.mark.anyio
async def test_service_refuses_writes_while_unbounded(
    create_app: Callable[..., FastAPI], segment: PlayedSegment
) -> None:
    """Without a bound, for want of a source or by a migration that the publisher has not told yet, writes get 503
    with the reason and when to try again, and reads go on; with a bound, writes are taken."""
    app = create_app(str(segment.path), fence=str(segment.device))

    async def assert_refused(reason: str, error: str) -> None:
        refused = await client.post("/notes", json="lost")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert reason in refused.json()["reason"]
        read = await client.get("/notes")
        assert (read.status_code, read.json(), read.headers["Clock-Unbounded"]) == (200, [], error)
        assert await health(client, "unbounded") == 503

    with anyio.fail_after(10):
        async with lifespan_of(app), client_of(app) as client:
            segment.lose_sync(void=True)
            await assert_refused("UNKNOWN", "ClockNotSynchronizedError")
            segment.regain_sync()
            segment.freeze()
            segment.migrate()
            await assert_refused("disrupted", "ClockDisruptedError")
            segment.thaw()
            assert (await client.post("/notes", json="kept")).status_code == 201
            assert await health(client, "ready") == 200


@pytest.mark.anyio
async def test_service_drains(create_app: Callable[..., FastAPI], segment: PlayedSegment) -> None:
    """From the announcement, be it older than the service, until the migration, writes get 503 and reads go on."""
    app = create_app(str(segment.path), fence=str(segment.device))
    with anyio.fail_after(10):
        for announced_before in (False, True):
            if announced_before:
                segment.announce_maintenance()
            async with lifespan_of(app), client_of(app) as client:
                if not announced_before:
                    assert await health(client, "ready") == 200
                    segment.announce_maintenance(imminent=True)
                    assert await health(client, "draining") == 503
                refused = await client.post("/notes", json="late")
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
                assert "maintenance" in refused.json()["reason"]
                assert (await client.get("/notes")).status_code == 200
                segment.migrate()
                assert await health(client, "ready") == 200
                assert (await client.post("/notes", json="here")).status_code == 201


def test_service_under_uvicorn(start: Start, segment: PlayedSegment) -> None:
    """The program serves over HTTP: it takes a note, drains, and ends when it is told to."""
    process = start("fastapi_service.py", *on(segment), "--port", 0)
    while (address := re.search(r"running on (http://\S+)", line_of(process.stderr))) is None:
        pass
    import httpx

    with httpx.Client(base_url=address[1], trust_env=False) as client:
        assert client.post("/notes", json="hello").status_code == 201
        segment.announce_maintenance()
        eventually(lambda: client.get("/health").json()["state"] == "draining")
        assert client.post("/notes", json="late").status_code == 503
    process.terminate()
    _, _, errors = ended(process)
    assert "Application shutdown complete" in errors
    assert "Traceback" not in errors


def test_service_without_a_segment_says_so(start: Start, tmp_path: Path) -> None:
    """One line, which names the path and what to do."""
    process = start("fastapi_service.py", tmp_path / "shm0", "--port", 0)
    status, _, errors = ended(process)
    assert (status, errors.count("\n")) == (1, 1)
    assert f"{tmp_path / 'shm0'}: nothing is there; start a publisher" in errors
