"""The commands, as typer knows them."""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final, cast

import typer

from vmclock_async._cli.completion import words_to_complete
from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import fail_usage

__all__ = ("COMMANDS", "invoke")

_UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""The exception for wrong usage: click's, or that of the copy of click that newer releases of typer contain."""
COMMANDS: Final = (
    *("publish", "show", "now", "explain", "wait", "watch", "on", "record", "disrupt", "set-clock"),
    *("follow", "metrics", "report", "sources", "doctor", "install-units", "completion", "demo"),
)
"""Names of the commands. Each is a function in a module of the same name, with _ for -; that may have a `Parser`."""


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
    """The commands; only the one that *argv* names, if it names one."""
    app = typer.Typer(
        name="vmclock-async",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    first = next((word for word in argv if not word.startswith("-")), None)
    for name in (first,) if first in COMMANDS else COMMANDS:
        function = name.replace("-", "_")
        module = import_module(f"vmclock_async._cli.{function}")
        app.command(name, cls=getattr(module, "Parser", None))(getattr(module, function))
    return app


def invoke(argv: Sequence[str], *, as_json: bool) -> int:
    """Run the command that *argv* names; report wrong usage; return the exit status."""
    try:
        typed = words_to_complete()
        app = _app(argv if typed is None else typed)
        # Not standalone, so that wrong usage is reported like every other failure. The result is an Exit's status.
        return app(args=list(argv), prog_name="vmclock-async", standalone_mode=False) or ExitStatus.DONE
    except _UsageError as exc:
        if argv:
            remedy = f"see: {exc.ctx.command_path if exc.ctx else 'vmclock-async'} --help"
            return fail_usage(exc.format_message(), remedy, as_json=as_json)
        exc.show()  # the help
        return ExitStatus.WRONG_USAGE
