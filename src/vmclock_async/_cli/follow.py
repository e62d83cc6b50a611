"""``follow``: the segments that ClockBound's clients read, kept by a segment of ours."""

import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, final

import typer

from vmclock_async._cli.options import duration
from vmclock_async._cli.output import complain, print_json, run_async
from vmclock_async._notation import duration_text
from vmclock_async._reading.arrival import until_there
from vmclock_async.clock import Clock, open_clock
from vmclock_async.clockbound import ErrorBoundFollower, ErrorBoundWriter, Followed, Layout
from vmclock_async.errors import SegmentNotInitializedError

__all__ = ("follow",)

_INTERVAL: Final = "100ms"
_SHORTEST_INTERVAL_NS: Final = 5 * 10**6
_LONGEST_INTERVAL_NS: Final = 10**9
_MOST_SLEW_PPM: Final = 400_000


def follow(
    directory: Annotated[
        Path,
        typer.Option(
            "--clockbound", metavar="DIR", help="Directory of ClockBound's segments: /var/run/clockbound."
        ),
    ],
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    max_slew: Annotated[
        int | None,
        typer.Option(
            metavar="PPM",
            min=0,
            max=_MOST_SLEW_PPM,
            help="Fastest that a daemon here slews CLOCK_REALTIME, such as maxslewrate in chrony.conf; by default "
            "a tenth and 500 ppm, which no known daemon exceeds.",
        ),
    ] = None,
    interval_ns: Annotated[
        int,
        typer.Option(
            "--interval", metavar="DURATION", parser=duration, help="Longest time between two updates, 5ms to 1s."
        ),
    ] = _INTERVAL,  # type: ignore[assignment]
    device: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="VMClock page whose marker clients compare; by default /dev/vmclock0 if it is there.",
        ),
    ] = None,
    experimental_shm1: Annotated[
        bool, typer.Option("--experimental-shm1", help="Keep shm1, of ClockBound 3, too; its layout is inferred.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a change of status.")] = False,
) -> None:
    """Keep ClockBound's segment by ours, so that ClockBound's own clients read this time, until Ctrl-C.

    Stop ClockBound's daemon first. What clients read says how far CLOCK_REALTIME may be off, which grows by --max-slew
    until the next update. At the end of this command they read UNKNOWN. A segment that is not there yet is waited for.

    vmclock-async follow --clockbound /var/run/clockbound
    """
    if not _SHORTEST_INTERVAL_NS <= interval_ns <= _LONGEST_INTERVAL_NS:
        raise typer.BadParameter("must be from 5ms to 1s", param_hint="--interval")
    orders = _Orders(
        str(directory),
        "auto" if device is None else device,
        (Layout.V2, Layout.V3) if experimental_shm1 else (Layout.V2,),
        max_slew,
        interval_ns / 10**9,
        as_json,
    )
    run_async(partial(_serve, path, orders), end_on=(signal.SIGTERM, signal.SIGHUP, signal.SIGINT))


class _Orders(NamedTuple):
    """What the command line asks for."""

    directory: str
    fence: Literal["auto"] | Path
    layouts: tuple[Layout, ...]
    max_slew_ppm: int | None
    interval_s: float
    as_json: bool


async def _serve(path: Path | None, orders: _Orders) -> None:
    """Keep the segments by the one at *path*, for ever."""
    async with AsyncExitStack() as stack:
        clock = await until_there(
            path,
            lambda: stack.enter_async_context(open_clock(path, fence=orders.fence)),
            partial(_begin_waiting, orders),
            fence=orders.fence,
        )
        follower = ErrorBoundFollower(
            clock,
            orders.directory,
            layouts=orders.layouts,
            max_slew_ppm=orders.max_slew_ppm,
            interval=orders.interval_s,
            on_change=_Reports(clock, orders).add,
        )
        await follower.run()


def _begin_waiting(orders: _Orders, exc: SegmentNotInitializedError) -> None:
    """Make the segments that are missing, so that a directory that cannot be written is said at once, not in the end.

    Clients can then start before the publisher does, and read UNKNOWN.
    """
    for layout in orders.layouts:
        ErrorBoundWriter(Path(orders.directory, layout.file_name), layout=layout).close()
    complain(f"{exc}; waiting for it")


@final
class _Reports:
    """A line for people and one for programs at each change of status, and a line at the beginning."""

    def __init__(self, clock: Clock, orders: _Orders) -> None:
        self._clock: Final = clock
        self._orders: Final = orders
        self._has_begun = False

    def add(self, followed: Followed) -> None:
        """Report what was written."""
        bound, directory = followed.bound, self._orders.directory
        if not self._has_begun:
            self._has_begun = True
            complain(f"keeping ClockBound's segment in {directory} by {self._clock.path}; Ctrl-C ends it")
        if followed.reason is None:
            complain(f"{bound.status.name}: CLOCK_REALTIME is within {duration_text(bound.bound_ns)}")
        else:
            complain(f"{bound.status.name}: {followed.reason}")
        if self._orders.as_json:
            print_json(
                {
                    "path": self._clock.path,
                    "clockbound": directory,
                    "bounded": followed.reason is None,
                    "status": bound.status.name,
                    "bound_ns": bound.bound_ns,
                    "max_drift_ppb": bound.max_drift_ppb,
                    "reason": followed.reason,
                }
            )
