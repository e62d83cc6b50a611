"""The tasks that ask the servers, one for each.

Where a name has several addresses, the next one is tried at once if there is no way to the first (as to an IPv6 address
from a machine that has none), and with the next request if it does not answer. When none is left the name is looked up
again, because the names of pools lead to other machines from time to time. An address that another server of the list
has is passed over: if two names lead to one machine, it must not have two votes. The log has a line when a server
begins to fail, and one when it is good again.
"""

import logging
from typing import Final, final

import anyio

from vmclock_async import Emit
from vmclock_ntp.exchange import ANSWERED_WITHIN_S, Address, Exchange, ask
from vmclock_ntp.knowledge import Knowledge
from vmclock_ntp.server import Server

__all__ = ("Asking",)

_log: Final = logging.getLogger("vmclock_async.ntp")


@final
class Asking:
    """Asks the servers of *knowledge* in one run of the source.

    Args:
        are_set: whether a user has named the servers; else it is no news that one does not answer.
    """

    def __init__(self, knowledge: Knowledge, emit: Emit, *, are_set: bool) -> None:
        self.first_round: Final = anyio.Event()
        """Set once every server has been asked."""
        self._knowledge: Final = knowledge
        self._emit: Final = emit
        self._are_set: Final = are_set
        self._not_asked = set(knowledge.servers)
        self._complained: Final[set[Server]] = set()
        self._news = anyio.Event()
        self._again = anyio.Event()

    def ask_again(self) -> None:
        """Ask all servers again, as soon as they may be."""
        self._again.set()
        self._again = anyio.Event()

    async def news_within(self, seconds: float) -> None:
        """Return when a server has answered, or after *seconds*."""
        with anyio.move_on_after(seconds):
            await self._news.wait()

    async def keep_asking(self, server: Server) -> None:
        """Ask *server* until it forbids that, or the task is cancelled."""
        while not server.forbidden:
            while (wait_s := server.wait_s(anyio.current_time())) > 0:
                with anyio.move_on_after(wait_s) as waiting:
                    await self._again.wait()
                if waiting.cancelled_caught:
                    break
            epoch = self._emit.epoch
            await self._ask(server, epoch)
            self._complain(server)
            self._note_asked(server)
        self._note_asked(server)

    def _note_asked(self, server: Server) -> None:
        self._not_asked.discard(server)
        if not self._not_asked:
            self.first_round.set()
        self._news.set()
        self._news = anyio.Event()

    async def _ask(self, server: Server, epoch: int) -> None:
        exchange, failure = None, ""
        try:
            exchange, failure = await self._exchange(server)
        except OSError as exc:
            server.note_request(anyio.current_time())
            failure = f"its name cannot be resolved ({exc.strerror or exc})"
        if epoch != self._emit.epoch or epoch != self._knowledge.epoch:
            return  # it is about another epoch; the next request is due already
        if exchange is None:
            server.miss(failure)
        else:
            self._knowledge.hear(server, exchange)

    async def _exchange(self, server: Server) -> tuple[Exchange | None, str]:
        """The exchange with *server*, at the first of its addresses that can be asked; or why there was none.

        Raises:
            OSError: the resolver finds no address.
        """
        if not server.addresses:
            server.failure = "its name is still being looked up"
            server.addresses = await self._knowledge.servers[server].addresses()
        failure = "its name has no address"
        while server.addresses:
            address = server.addresses[0]
            server.note_request(anyio.current_time())
            if namesake := self._asked_as(address, server):
                server.addresses.pop(0)
                failure = f"{address[1][0]} is asked already, as {namesake}: each server has one vote"
                continue
            server.asks = address
            try:
                if (exchange := await ask(address)) is not None:
                    return exchange, ""
            except OSError as exc:
                server.addresses.pop(0)
                failure = f"{address[1][0]} cannot be asked ({exc.strerror or exc})"
            else:
                server.addresses.pop(0)
                return None, f"no answer from {address[1][0]} within {ANSWERED_WITHIN_S:g} s"
        return None, failure

    def _asked_as(self, address: Address, server: Server) -> str | None:
        """Name of another server than *server* that asks *address*, or counts by its answers; None if there is none."""
        place = address[1][:2]  # what follows host and port depends on where the address is from
        for other in self._knowledge.servers:
            theirs = {known[1][:2] for known in (other.asks, other.heard_from) if known}
            if other is not server and place in theirs:
                return other.name
        return None

    def _complain(self, server: Server) -> None:
        if not self._are_set:
            return
        if server.failure is None:
            if server in self._complained:
                self._complained.discard(server)
                _log.info("%s gives the time again", server.name)
        elif server.is_failing and server not in self._complained:
            self._complained.add(server)
            _log.warning("%s: %s", server.name, server.failure)
