"""Signals of a test's children: a suite in the background, or under nohup, hands down ignored ones."""

import signal


def at_default() -> None:
    """Give each signal that asks a process to end its default action: a ``preexec_fn``."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
