"""The exit statuses of all commands; the manual's table says when each of them comes."""

from enum import IntEnum
from typing import final

__all__ = ("ExitStatus",)


@final
class ExitStatus(IntEnum):
    """What a command ends with. Those above 128 are as a shell has them: 128 and the number of a signal."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    """The command line or the configuration is wrong, so that the same command fails again."""
    HUNG_UP = 129
    """SIGHUP: the terminal is gone."""
    INTERRUPTED = 130
    """SIGINT: Ctrl-C."""
    TERMINATED = 143
    """SIGTERM, of a command whose status 0 would say that something has come about."""
