"""``set-clock``: CLOCK_REALTIME from the segment."""

from pathlib import Path
from typing import Annotated, Final

import typer

from vmclock_async._cli.options import duration
from vmclock_async._cli.output import print_json, print_line
from vmclock_async._cli.paths import reader_path
from vmclock_async._notation import duration_text
from vmclock_async.clock import Clock
from vmclock_async.restore import SystemClockStep, step_system_clock

__all__ = ("set_clock",)

_THRESHOLD_NS: Final = 5 * 10**8


def set_clock(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    threshold_ns: Annotated[
        int | None,
        typer.Option(
            "--threshold",
            metavar="DURATION",
            parser=duration,
            help="Leave the clock alone if it is off by less; by default 0.5s.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Set nothing; say what would be done.")] = False,
    beside_daemon: Annotated[
        bool, typer.Option("--beside-daemon", help="Set it although a daemon disciplines it.")
    ] = False,
    independent: Annotated[
        bool, typer.Option("--independent", help="I know that the segment's time does not rest on this clock.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Set CLOCK_REALTIME to the segment's time if it is off, and say what was done.

    Refused without a bounded time, without CAP_SYS_TIME, where the time comes from this very clock, and beside
    chronyd or another daemon that disciplines it.

    vmclock-async set-clock --dry-run
    """
    threshold_ns = threshold_ns or _THRESHOLD_NS
    with Clock(reader_path(path)) as clock:
        done = step_system_clock(
            clock,
            threshold_s=threshold_ns / 10**9,
            beside_daemon=beside_daemon,
            independent=independent,
            dry_run=dry_run,
        )
        if as_json:
            facts = {"stepped": done.stepped, "step_ns": done.step_ns, "dry_run": dry_run}
            times = {"before_ns": done.before_ns, "after_ns": done.after_ns}
            print_json({"bounded": True, "path": clock.path, **facts, **times, **done.interval.as_dict()})
        else:
            print_line(_told(done, threshold_ns))


def _told(done: SystemClockStep, threshold_ns: int) -> str:
    if not done.step_ns:
        return f"CLOCK_REALTIME is within {duration_text(threshold_ns)} of {done.interval}: left alone"
    way = "forward" if done.step_ns > 0 else "back"
    step = duration_text(abs(done.step_ns), to_nearest=True)
    return f"CLOCK_REALTIME {'was' if done.stepped else 'would be'} set {way} by {step}"
