"""``publish``: the main command."""

import logging
import os
import signal
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import anyio
import anyio.lowlevel
import typer

from vmclock_async._cli.auto import AUTO, CHOICES, DEFAULTS, pick
from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.logs import LogFormat, LogLevel, configure
from vmclock_async._cli.metrics import require_prometheus_client, serving
from vmclock_async._cli.options import address
from vmclock_async._cli.output import EndedError, complain, is_terminal, print_json, run_async
from vmclock_async._cli.paths import on_tmpfs, publisher_path
from vmclock_async._cli.progress import show_progress
from vmclock_async._cli.service_manager import Readiness, ServiceManager, notifying
from vmclock_async._publishing.loop_watch import SOURCE, InterruptedSource
from vmclock_async._wording import failure
from vmclock_async.abi import MAGIC
from vmclock_async.errors import SegmentMalformedError, SourceError, SourceSettingsError
from vmclock_async.publisher import Publisher
from vmclock_async.sources import Source, build_source, find_source, installed_sources

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
    segment: Annotated[Path | None, typer.Option(help="Where the segment is, or shall be.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="SOURCE.OPTION=VALUE", help="An option of a source.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with one table of options a source.")] = None,
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
        Readiness,
        typer.Option("--ready", help="What has to be there before a service manager is told READY=1."),
    ] = Readiness.SEGMENT,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="The form of what is written to stderr, one event a line.")
    ] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="The least level of that.")] = LogLevel.INFO,
    as_json: Annotated[bool, typer.Option("--json", help="Print statistics as JSON at the end.")] = False,
) -> None:
    """Publish what sources say into a segment, until they end or Ctrl-C.

    vmclock-async publish chrony kernel --log-format json
    """
    configure(log_level, log_format)
    manager = ServiceManager.take()
    if metrics is not None:
        require_prometheus_client()
    chosen = _build(sources or [AUTO], _read_config(config), options or [])
    path = publisher_path(segment)
    _refuse_to_overwrite(path)
    if on_tmpfs(path) is False:
        complain(
            f"warning: {path} is not on tmpfs: it is written to disk, and outlives a reboot", level=logging.WARNING
        )
    publisher = Publisher(path, chosen)
    try:
        run_async(partial(_run, publisher, chosen, metrics, manager, ready))
    except EndedError:  # interrupted; a failure has its own line, and needs no other
        _tell_the_end(publisher, as_json=as_json)
        raise
    except SystemExit as exc:  # from a task that a source has started: asyncio lets it through
        raise _source_exited(publisher, exc) from exc
    _tell_the_end(publisher, as_json=as_json)


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


def _read_config(config: Path | None) -> dict[str, object]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as exc:
        raise typer.BadParameter(f"{config}: cannot be read ({exc.strerror})", param_hint="--config") from exc
    except (ValueError, RecursionError) as exc:
        # Not TOML, not UTF-8, or a number of more digits or deeper tables than Python takes.
        raise typer.BadParameter(f"{config}: not TOML that can be read ({exc})", param_hint="--config") from exc


def _build(names: list[str], tables: Mapping[str, object], settings: list[str]) -> dict[str, Source]:
    """The sources *names*, with the options of the configuration file and of --set, which overrides the file."""
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"a source is named twice: {', '.join(names)}", param_hint="SOURCE")
    known = {name for name in names if name != AUTO}
    if AUTO in names:
        known |= set(CHOICES) & installed_sources().keys()
    if unknown := tables.keys() - known:
        raise typer.BadParameter(
            f"a table {', '.join(sorted(unknown))} for what is not among the sources: {', '.join(sorted(known))}",
            param_hint="--config",
        )
    options: dict[str, dict[str, object]] = {}
    for name in sorted(known):
        find_source(name)  # an unknown name is reported before an option of it
        table = tables.get(name, {})
        if not isinstance(table, Mapping):
            raise SourceSettingsError(name, f"its options must be a table in the configuration, not {table!r}")
        options[name] = dict(table)
    for setting in settings:
        key, equals, value = setting.partition("=")
        name, dot, option = key.partition(".")
        if not (equals and dot and name and option):
            raise typer.BadParameter(f"{setting!r} is not SOURCE.OPTION=VALUE", param_hint="--set")
        if name not in options:
            raise typer.BadParameter(
                f"{setting!r} sets an option of {name}, which is not among the sources: {', '.join(sorted(known))}",
                param_hint="--set",
            )
        options[name][option] = value

    def build(name: str) -> Source:
        return build_source(name, options.get(name, {}))

    def build_default(name: str) -> Source:
        return build_source(name, {**DEFAULTS.get(name, {}), **options.get(name, {})})

    built: dict[str, Source] = {}
    named = frozenset(names) - {AUTO}
    for name in names:
        built |= pick(build_default, besides=named) if name == AUTO else {name: build(name)}
    return built


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
        if told > _TIMES_TOLD:
            complain("ended by force, because a source neither ends nor lets others run")
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
