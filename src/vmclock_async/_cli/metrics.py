"""``metrics``: the metrics of a segment, from a reader's side; and the server that ``publish`` has too."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from vmclock_async._cli.options import address
from vmclock_async._cli.output import complain, print_json, print_line, run_async
from vmclock_async._cli.outputs import writing
from vmclock_async.errors import VMClockError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ("metrics", "require_prometheus_client", "serving")


def metrics(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="ADDRESS", parser=address, help="Serve /metrics at this IP address: :9123."
        ),
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option("--textfile", metavar="FILE", help="Replace FILE, a *.prom that node_exporter reads."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the samples as JSON.")] = False,
) -> None:
    """Print the metrics of a segment for Prometheus once, or serve them.

    A segment that is not there is no failure: vmclock_up is 0 then. An ADDRESS without a host is on loopback. With
    --listen the command ends with Ctrl-C or SIGTERM.

    vmclock-async metrics --listen :9123
    """
    if as_json and (listen is not None or textfile is not None):
        raise typer.BadParameter("it is for the metrics that are printed", param_hint="--json")
    if textfile is not None and (listen is not None or textfile.suffix != ".prom"):
        reason = (
            "take this or --listen" if listen is not None else "node_exporter reads names that end in .prom alone"
        )
        raise typer.BadParameter(f"{textfile}: {reason}", param_hint="--textfile")
    require_prometheus_client()
    from prometheus_client.exposition import generate_latest, write_to_textfile

    from vmclock_async.metrics import ClockCollector

    collector = ClockCollector(path)
    if listen is not None:
        run_async(partial(_serve, collector, listen))
    elif textfile is not None:
        with writing(textfile):
            write_to_textfile(str(textfile), collector)  # writes a file beside it, and renames that
    elif as_json:
        samples = [sample for family in collector.collect() for sample in family.samples]
        print_json(
            {"samples": [{"name": name, "labels": labels, "value": value} for name, labels, value, *_ in samples]}
        )
    else:
        print_line(generate_latest(collector).decode().removesuffix("\n"))


def require_prometheus_client() -> None:
    """Raise unless metrics can be made.

    Raises:
        VMClockError: prometheus-client is not installed.
    """
    try:
        import vmclock_async.metrics  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name != "prometheus_client":
            raise
        raise VMClockError(str(exc)) from exc


@asynccontextmanager
async def serving(collector: "Collector", listen: str) -> AsyncIterator[None]:
    """Serve *collector* at *listen* for the length of the block, and say where."""
    from vmclock_async.metrics import serve_metrics

    async with serve_metrics(collector, listen) as bound:
        complain(f"info: metrics are at http://{bound}/metrics", level=logging.INFO)
        yield


async def _serve(collector: "Collector", listen: str) -> None:
    async with serving(collector, listen):
        await anyio.sleep_forever()
