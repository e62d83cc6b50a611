"""The commands, and the handling of their errors."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

from vmclock_async._cli.failures import UsageError, fail, fail_usage, wants_debug, wants_json
from vmclock_async._cli.output import complain, show_traceback
from vmclock_async.errors import VMClockError

__all__ = ("run",)

_COMMANDS: Final = ("publish", "show", "now", "watch", "on", "sources", "demo")
"""Names of the commands. Each is a function in a module of the same name, which may have a `Parser` of its own."""


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"vmclock-async {version('vmclock-async')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    _debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of a failure, of a plugin too; works after COMMAND."),
    ] = False,
) -> None:
    """Publish, read and watch VMClock segments.

    PATH defaults to $VMCLOCK_ASYNC_SEGMENT, then /run/vmclock-async/shm0, then the user's runtime
    directory, then /dev/shm/vmclock-async-UID/shm0.
    """


def _app(argv: Sequence[str]) -> typer.Typer:
    """The commands; only the one that *argv* names, if it names one, because a health check runs it each second."""
    app = typer.Typer(
        name="vmclock-async",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    first = next((word for word in argv if not word.startswith("-")), None)
    for name in (first,) if first in _COMMANDS else _COMMANDS:
        module = import_module(f"vmclock_async._cli.{name}")
        app.command(name, cls=getattr(module, "Parser", None))(getattr(module, name))
    return app


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


def run(argv: Sequence[str]) -> int:
    """Run the command that *argv* names; return the exit status."""
    logger = logging.getLogger("vmclock_async")
    handler = _Notes(logging.INFO)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    debug, argv = wants_debug(argv)
    as_json = wants_json(argv)
    try:
        # Not standalone, so that wrong usage is reported like every other failure. The result is an Exit's status.
        return _app(argv)(args=list(argv), prog_name="vmclock-async", standalone_mode=False) or 0
    except SystemExit as exc:  # raised by typer when the reader of the help has closed the pipe
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except UsageError as exc:
        if argv:
            return fail_usage(exc, as_json=as_json)
        exc.show()  # the help
        return exc.exit_code
    except (VMClockError, OSError) as exc:
        if debug:
            show_traceback(exc)
        return fail(exc, as_json=as_json)
    except Exception as exc:  # a bug: it shows its traceback; but a program that reads JSON gets its object
        if as_json:
            fail(exc, as_json=as_json)
        raise
    finally:
        logger.removeHandler(handler)
