"""A web service that says how late it is, takes no writes without a bound, and drains before maintenance.

    pip install '.[examples]'
    python examples/fastapi_service.py [SEGMENT] [--fence DEVICE] [--port 8000]

    curl -i localhost:8000/notes                      # each response is stamped: Clock-Earliest-Ns, Clock-Latest-Ns
    curl -i localhost:8000/notes --json '"hello"'     # each note too; 503 with the reason where there is no bound
    curl -i localhost:8000/health                     # 200 ready; 503 draining or unbounded: no traffic, please

When maintenance is announced, writes get 503 and reads go on; once the machine was migrated, writes are taken again.
"""

import argparse
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
import uvicorn
from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from vmclock_async import Clock, Flags, TimeInterval, VMClockError, open_clock
from vmclock_async.events import EventStream, MaintenanceAnnounced

logger = logging.getLogger("uvicorn.error")


class Note(BaseModel):
    """What was written, and when: true time lay within *at*."""

    text: str
    at: TimeInterval


class DrainingError(Exception):
    """Maintenance is announced."""


class Service:
    """The notes, and what the service knows of its machine."""

    def __init__(self, clock: Clock, events: EventStream) -> None:
        self.clock = clock
        self.events = events
        self.notes: list[Note] = []

    async def follow(self) -> None:
        """Keep up with the page, and log what happens to the machine."""
        async for event in self.events:
            logger.warning("%s", "draining" if isinstance(event, MaintenanceAnnounced) else type(event).__name__)

    def begin_write(self) -> TimeInterval:
        """The interval to write under; raises DrainingError or VMClockError where nothing may be written."""
        # The flags, not the event: maintenance may have been announced before we started, and is over after the move.
        if self.events.snapshot.body.flags & (Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT):
            raise DrainingError("maintenance is announced; ask another machine")
        return self.clock.now()


def service_of(request: Request) -> Service:
    """The service that this request is for."""
    service: Service = request.app.state.service
    return service


OurService = Annotated[Service, Depends(service_of)]


def begin_write(service: OurService) -> TimeInterval:
    """The interval of this write; every endpoint that writes depends on it."""
    return service.begin_write()


def create_app(segment: str | None = None, *, fence: str = "auto") -> FastAPI:
    """The application on *segment*; by itself: ``uvicorn --factory fastapi_service:create_app``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_clock(segment, fence=fence) as clock, clock.events() as events:
            app.state.service = Service(clock, events)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app.state.service.follow)
                yield
                tasks.cancel_scope.cancel()

    app = FastAPI(title="Notes", lifespan=lifespan)

    @app.middleware("http")
    async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        try:
            now = service_of(request).clock.now()
        except VMClockError as exc:
            response.headers["Clock-Unbounded"] = type(exc).__name__
        else:
            response.headers["Clock-Earliest-Ns"] = str(now.earliest_ns)
            response.headers["Clock-Latest-Ns"] = str(now.latest_ns)
        return response

    @app.exception_handler(VMClockError)
    @app.exception_handler(DrainingError)
    async def refuse(request: Request, exc: Exception) -> Response:
        state, retry_s = ("draining", "60") if isinstance(exc, DrainingError) else ("unbounded", "1")
        return JSONResponse({"state": state, "reason": str(exc)}, 503, {"Retry-After": retry_s})

    @app.get("/notes")
    async def read(service: OurService) -> list[Note]:
        return service.notes

    @app.post("/notes", status_code=201)
    async def write(
        text: Annotated[str, Body()], at: Annotated[TimeInterval, Depends(begin_write)], service: OurService
    ) -> Note:
        service.notes.append(Note(text=text, at=at))
        return service.notes[-1]

    @app.get("/health", dependencies=[Depends(begin_write)])
    async def health() -> dict[str, str]:
        return {"state": "ready"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve notes, stamped with intervals.")
    parser.add_argument("segment", nargs="?", help="default: where the publisher puts it")
    parser.add_argument("--fence", default="auto", help="the device; default: /dev/vmclock0 where there is one")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    arguments = parser.parse_args()
    try:
        Clock(arguments.segment, fence=arguments.fence).close()  # a line here instead of the server's traceback
    except VMClockError as exc:
        parser.exit(1, f"fastapi_service: {exc}\n")
    uvicorn.run(create_app(arguments.segment, fence=arguments.fence), port=arguments.port)
