"""``completion``: the script with which a shell completes the words of this command.

The shell runs ``vmclock-async`` with the words typed so far in its environment, and typer answers. The modules of typer
that know the shells are private, because typer offers completion only as two options of the program. They are imported
when a shell asks, so that no other command depends on them.
"""

import os
from enum import StrEnum
from typing import Annotated, Final

import typer

from vmclock_async._cli.output import print_json, print_line

__all__ = ("completion", "words_to_complete")

_VARIABLE: Final = "_VMCLOCK_ASYNC_COMPLETE"
"""What asks for completions; typer derives this name from the program's."""
_WORDS: Final = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
"""Where typer's script for bash has the words, and where those for zsh and fish have them."""


class Shell(StrEnum):
    """The shells whose completion is tested here."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", show_default=False, help="The shell that reads the script.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the script as JSON.")] = False,
) -> None:
    """Print the script with which a shell completes commands, options, sources and paths.

    source <(vmclock-async completion bash)
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="vmclock-async", complete_var=_VARIABLE, shell=shell)
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        print_line(script)


def words_to_complete() -> list[str] | None:
    """The whole words that were typed after the program's name; None: no shell asks for completions."""
    if _VARIABLE not in os.environ:
        return None
    from typer._completion_classes import completion_init

    completion_init()
    typed = next((os.environ[name] for name in _WORDS if name in os.environ), "")
    words = typed.split()[1:]
    return words if typed[-1:].isspace() else words[:-1]  # the last one may go on
