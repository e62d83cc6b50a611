"""What the options of several commands share."""

import typer

from vmclock_async._cli.sizes import parse_size
from vmclock_async._exporting.address import parse_address
from vmclock_async._notation import parse_duration

__all__ = ("address", "duration", "size")


def address(text: str) -> str:
    """*text*, an address to listen on, for an option's ``parser``; what is none is wrong usage."""
    try:
        return str(parse_address(text))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def duration(text: str) -> int:
    """*text* as ``parse_duration`` has it, for an option's ``parser``; what is none is wrong usage."""
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def size(text: str) -> int:
    """*text* as ``parse_size`` has it, for an option's ``parser``; what is none is wrong usage."""
    try:
        return parse_size(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
