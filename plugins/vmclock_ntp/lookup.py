"""Looks up the addresses of servers, however long that takes.

A resolver whose first name server is down takes 5 s and more for a name, and one that nothing answers half a minute
(``resolv.conf(5)``: timeout, attempts). A run of the source gives up sooner, and is begun again. So a look-up goes on
when the run ends that began it, and the next run takes its result: otherwise no run would ever see one.

A look-up has a daemon thread of its own, because nothing can cancel it: the end of the program waits for worker threads
of the event loop, but not for this one.
"""

import threading
from concurrent.futures import Future
from typing import Final, final

import anyio

from vmclock_ntp.address import ServerName
from vmclock_ntp.exchange import Address

__all__ = ("Lookup",)

_SHORTEST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.1


@final
class Lookup:
    """Looks up the addresses of *name*, each time it is asked to."""

    def __init__(self, name: ServerName) -> None:
        self._name: Final = name
        self._going_on: Future[list[Address]] | None = None

    async def addresses(self) -> list[Address]:
        """Its addresses, best first. Cancelling loses nothing: the next call takes the result.

        Raises:
            OSError: the resolver finds none.
        """
        try:
            return [self._name.numeric]
        except ValueError:
            pass
        if self._going_on is None:
            self._going_on = Future()
            thread = threading.Thread(
                target=self._look_up, args=(self._going_on,), name="ntp look-up", daemon=True
            )
            thread.start()
        pause_s = _SHORTEST_PAUSE_S
        while not self._going_on.done():  # no event that a thread can set works in every event loop
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        done, self._going_on = self._going_on, None
        return done.result()

    def _look_up(self, going_on: Future[list[Address]]) -> None:
        try:
            going_on.set_result(self._name.resolve())
        except BaseException as exc:  # whatever it is, the task that waits has to see it
            going_on.set_exception(exc)
