"""What a thread calls, counted: how long that took says more of the other processes than of the code."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def builtin_calls() -> Iterator[list[Callable[..., object]]]:
    """The built-in functions and methods that this thread calls in the block, in their order."""
    called: list[Callable[..., object]] = []

    def note(_: object, event: str, function: Callable[..., object]) -> None:
        if event == "c_call":
            called.append(function)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
