"""Command lines that manuals, units and manifests show: what they name has to be there."""

import re
from functools import cache
from pathlib import Path

from kit.commands import run_command
from vmclock_async._cli.configuration.tables import KEYS
from vmclock_async.sources import build_source

__all__ = ("check_command",)


@cache
def help_of(command: str) -> str:
    """What *command* says of its options; fails if there is no such command."""
    asked = run_command(Path("/nowhere"), command, "--help")
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


def check_command(words: list[str]) -> None:
    """*words* after ``vmclock-async`` name a command, options of it, sources, and options that these take."""
    command, *rest = words
    help_text = help_of(command)
    options: dict[str, dict[str, str]] = {}
    arguments = iter(rest)
    for argument in arguments:
        if argument.startswith("--"):
            assert argument in help_text
            value = next(arguments) if re.search(rf"{argument} [A-Z<]\S", help_text) else ""
            if argument == "--set":
                key, _, text = value.partition("=")
                *tables, name = key.removeprefix("sources.").split(".")
                if tables[0] in KEYS:
                    assert name in KEYS[tables[0]]
                else:
                    options[tables[0]][name] = text
        elif command == "publish":
            options[argument] = {}
    for source, settings in options.items():
        build_source(source, settings)
