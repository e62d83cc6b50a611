"""``publish``: the main command."""

import json
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import anyio.lowlevel
import typer

from vmclock_async._cli.auto import AUTO
from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.logs import LogFormat, LogLevel, configure
from vmclock_async._cli.metrics import require_prometheus_client, serving
from vmclock_async._cli.options import address
from vmclock_async._cli.output import (
    EndedError,
    complain,
    is_terminal,
    let_go_of_output,
    print_json,
    print_line,
    run_async,
)
from vmclock_async._cli.paths import SEGMENT_VARIABLE, on_tmpfs, publisher_path
from vmclock_async._cli.progress import show_progress
from vmclock_async._cli.service_manager import Readiness, ServiceManager, notifying
from vmclock_async._publishing.loop_watch import SOURCE, InterruptedSource
from vmclock_async._wording import failure
from vmclock_async.abi import MAGIC
from vmclock_async.errors import SegmentMalformedError, SourceError
from vmclock_async.publisher import Publisher
from vmclock_async.sources import Source, installed_sources

if TYPE_CHECKING:
    from vmclock_async._cli.configuration.choice import ChosenSources
    from vmclock_async._cli.configuration.settings import Settings

__all__ = ("publish",)

_TIME_TO_END_S: Final = 2.0
"""Time, in seconds, from a signal to the interruption of a source, and between later attempts."""
_TIMES_TOLD: Final = 5


def _names_that_begin(typed: str) -> list[str]:
    """The names of sources that begin with *typed*."""
    return [name for name in (AUTO, *sorted(installed_sources())) if name.startswith(typed)]


def publish(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE", autocompletion=_names_that_begin, help="Names of sources; see the command sources."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with the configuration.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the configuration, or SOURCE.OPTION."),
    ] = None,
    segment: Annotated[Path | None, typer.Option(help="Where the segment is, or shall be.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="ADDRESS",
            parser=address,
            help="Serve metrics for Prometheus here; :9123 is loopback.",
        ),
    ] = None,
    ready: Annotated[
        Readiness | None,
        typer.Option(
            "--ready",
            help="What has to be there before a service manager is told READY=1; by default the segment.",
        ),
    ] = None,
    agreement: Annotated[
        bool | None,
        typer.Option(
            "--agreement", help="Compare the sources of time, and report those that contradict each other."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format", help="The form of what is written to stderr, one event a line; by default text."
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option("--log-level", help="The least level of that; by default info.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, print what is in effect, and end.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema of the configuration for editors, and end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print statistics as JSON at the end; with --check, the settings.")
    ] = False,
) -> None:
    """Publish what sources say into a segment, until they end or Ctrl-C.

    Settings come from --config, from variables as VMCLOCK_ASYNC_METRICS__ADDRESS, from --set, and from the other
    options and arguments; what is named later here is stronger.

    vmclock-async publish --config /etc/vmclock-async.toml --check
    """
    # With pydantic-settings, which other commands, and --help, do without.
    from vmclock_async._cli.configuration.choice import ChosenSources
    from vmclock_async._cli.configuration.layers import command_layer
    from vmclock_async._cli.configuration.schema import configuration_schema
    from vmclock_async._cli.configuration.settings import read_settings

    if schema:
        with redirect_stdout(sys.stderr):  # what a plugin prints at import is no part of the result
            text = json.dumps(configuration_schema(), indent=2)
        print_line(text)
        return
    if log_format is not None or log_level is not None:  # also for what is wrong with the configuration
        configure(log_level or LogLevel.INFO, log_format or LogFormat.TEXT)
    manager = ServiceManager.take()
    words = command_layer(
        publisher={"sources": sources or None, "segment": segment, "ready": ready, "agreement": agreement},
        metrics={"address": metrics},
        logs={"format": log_format, "level": log_level},
    )
    settings = read_settings(config, sets or [], words)
    configured = settings.configuration
    configure(configured.logs.level, configured.logs.format)
    if configured.metrics.address is not None:
        require_prometheus_client()
    with redirect_stdout(sys.stderr) if check else nullcontext():
        chosen = ChosenSources(settings)
        built = chosen.build()
    path = publisher_path(configured.publisher.segment)
    _refuse_to_overwrite(path)
    _warn_of_path(path, is_from_file=settings.origin(("publisher", "segment")) == str(config))
    if check:
        _show(settings, chosen, built, path, as_json=as_json)
        return
    publisher = Publisher(path, built, agreement=configured.publisher.agreement)
    try:
        run_async(partial(_run, publisher, built, configured.metrics.address, manager, configured.publisher.ready))
    except EndedError:  # interrupted; a failure has its own line, and needs no other
        _tell_the_end(publisher, as_json=as_json)
        raise
    except SystemExit as exc:  # from a task that a source has started: asyncio lets it through
        raise _source_exited(publisher, exc) from exc
    _tell_the_end(publisher, as_json=as_json)


def _warn_of_path(path: Path, *, is_from_file: bool) -> None:
    if on_tmpfs(path) is False:
        complain(
            f"warning: {path} is not on tmpfs: it is written to disk, and outlives a reboot", level=logging.WARNING
        )
    variable = os.environ.get(SEGMENT_VARIABLE)
    if is_from_file and variable and Path(variable) != path:
        complain(
            f"warning: the configuration's segment is {path}, and programs that have this environment look for "
            f"{variable}, because of ${SEGMENT_VARIABLE}",
            level=logging.WARNING,
        )


def _source_exited(publisher: Publisher, error: SystemExit) -> SourceError:
    for name, source in publisher.statistics().sources.items():
        if source.state == "failed":
            return SourceError(name, str(source.last_error))
    return SourceError(" or ".join(publisher.statistics().sources), f"failed with {failure(error)}")


def _tell_the_end(publisher: Publisher, *, as_json: bool) -> None:
    done = publisher.statistics()
    number = "" if done.seq_count is None else f", seq_count {done.seq_count}"
    commits = "1 commit" if done.commits == 1 else f"{done.commits} commits"
    complain(f"{commits} to {publisher.path}{number}", level=logging.INFO)
    if as_json:
        print_json(asdict(done))


def _refuse_to_overwrite(path: Path) -> None:
    """Refuse a path that leads to some other file: one that is neither empty, nor zeros, nor a segment."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return  # the writer refuses it
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return  # nothing is there, or the writer says what is wrong
    if head.strip(b"\0") and head != MAGIC.to_bytes(4, "little"):
        raise SegmentMalformedError(
            path, "is some other file, which publishing would overwrite; choose another path, or remove it first"
        )


def _show(
    settings: "Settings", chosen: "ChosenSources", built: Mapping[str, Source], path: Path, *, as_json: bool
) -> None:
    from vmclock_async._cli.configuration.effective import Effective  # with tomlkit

    effective = Effective(settings, chosen, built, path)
    if as_json:
        print_json(effective.fields())
    else:
        print_line(effective.toml().removesuffix("\n"))


async def _run(
    publisher: Publisher,
    sources: Mapping[str, Source],
    metrics: str | None,
    manager: ServiceManager | None,
    ready: Readiness,
) -> None:
    async with AsyncExitStack() as stack:
        if manager is not None:
            await stack.enter_async_context(notifying(manager, publisher, ready))
        if metrics is not None:
            from vmclock_async.metrics import PublisherCollector  # with prometheus-client

            await stack.enter_async_context(serving(PublisherCollector(publisher), metrics))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        if is_terminal(sys.stderr):
            tasks.start_soon(show_progress, publisher, sources)
        await anyio.lowlevel.checkpoint()  # so that the loop's own signal handlers are installed
        with _ending_held_loop():
            await publisher.run()
        tasks.cancel_scope.cancel()


@contextmanager
def _ending_held_loop() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a source that holds the event loop, or does not end when it is cancelled.

    The loop handles a signal in its own time. If it has not ended some seconds later, the code of a source is
    interrupted wherever it is. If that does not help either, the process ends by force; the segment is whole then
    too, as it is after a SIGKILL.
    """
    told = 0

    def begin(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, _TIME_TO_END_S, _TIME_TO_END_S)

    def insist(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told += 1
        let_go_of_output()
        if told > _TIMES_TOLD:
            try:
                complain("ended by force, because a source neither ends nor lets others run")
            finally:
                os._exit(ExitStatus.FAILED)
        if name := SOURCE.get():
            complain(
                f"{name}: interrupted, because it held the event loop when it had to end", fields={"source": name}
            )
            raise InterruptedSource

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, insist)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, begin)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
