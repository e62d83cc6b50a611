"""The start of a command, and the handling of its errors."""

from collections.abc import Sequence
from functools import partial

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import fail, wants_debug, wants_json
from vmclock_async._cli.logs import logging_to_stderr, report_bug
from vmclock_async._cli.output import EndedError, show_traceback, terminal_is_gone
from vmclock_async._cli.reading import plain_reading
from vmclock_async.errors import VMClockError

__all__ = ("run",)


def run(argv: Sequence[str]) -> int:
    """Run the command that *argv* names; return the exit status."""
    debug, argv = wants_debug(argv)
    as_json = wants_json(argv)
    command = plain_reading(argv)
    if command is None:
        from vmclock_async._cli.commands import invoke  # with typer

        command = partial(invoke, argv, as_json=as_json)
    with logging_to_stderr():
        try:
            return command()
        except EndedError as exc:
            return exc.status
        except SystemExit as exc:
            # Raised by typer when the reader of the help has closed the pipe, and after completions.
            if isinstance(exc.__context__, BrokenPipeError):
                return ExitStatus.DONE
            return exc.code if isinstance(exc.code, int) else ExitStatus.FAILED
        except (VMClockError, OSError) as exc:
            if isinstance(exc, OSError) and terminal_is_gone():
                return ExitStatus.HUNG_UP
            if debug:
                show_traceback(exc)
            return fail(exc, as_json=as_json)
        except Exception as exc:  # a bug: it shows its traceback; but a program that reads JSON gets its object
            if as_json:
                fail(exc, as_json=as_json)
            if report_bug(exc):
                return ExitStatus.FAILED
            raise
