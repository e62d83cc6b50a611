"""The awaits of a run, counted, so that it can be cancelled at each of them.

They are tested through ``check_source``, in ``tests/test_check_source.py``.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Final, final

import anyio

__all__ = ("AWAITS_TO_UNWIND", "STEP", "Awaits", "WentOn")

AWAITS_TO_UNWIND: Final = 1000
"""Number of awaits after which a run that was cancelled is taken to resist that."""


class WentOn(BaseException):
    """Ends a run that resists cancellation."""


@final
class Awaits:
    """Counts the times that an awaitable lets others run, and cancels *scope* at one of them."""

    def __init__(self, scope: anyio.CancelScope, cancel_at: int | None) -> None:
        self._scope: Final = scope
        self._cancel_at: Final = cancel_at
        self._since_cancelled = 0
        self.number = 0

    async def counted(self, awaitable: Awaitable[Any]) -> None:
        await _Stepped(awaitable, self._count)

    def _count(self) -> None:
        self.number += 1
        self._since_cancelled += self._scope.cancel_called
        if self.number == self._cancel_at:
            self._scope.cancel()
        if self._since_cancelled > AWAITS_TO_UNWIND:
            raise WentOn


@final
class _Stepped:
    """An awaitable that calls *on_suspend* each time that it is about to let others run."""

    def __init__(self, awaitable: Awaitable[Any], on_suspend: Callable[[], None]) -> None:
        self._awaitable: Final = awaitable
        self._on_suspend: Final = on_suspend

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        resume: Callable[[], Any] = steps.__next__
        while True:
            try:
                waits_for = resume()
            except StopIteration as stop:
                return stop.value
            try:
                self._on_suspend()
            except BaseException:
                with suppress(RuntimeError):  # it ignored that, too
                    steps.close()
                raise
            resume = yield from _resumed(steps, waits_for)


STEP: Final = _Stepped.__await__.__code__
"""The code that is on the stack while a counted awaitable runs."""


def _resumed(steps: Generator[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Callable[[], Any]]:
    """Let others run; then return how *steps* goes on."""
    try:
        value = yield waits_for
    except BaseException as exc:
        error = exc
        return lambda: steps.throw(error)
    return lambda: steps.send(value)
