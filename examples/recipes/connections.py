"""A client whose connections and session are not those of a clone."""

import sys

import anyio
import httpx

from vmclock_async import Clock, ClockDisruptedError, open_clock
from vmclock_async.restore import callbacks, register_after_restore, reseed_python


class Client:
    """Speaks to the server at *url*, in a session of its own."""

    def __init__(self, clock: Clock, url: str) -> None:
        self.clock = clock
        self.url = url
        self.http = httpx.AsyncClient(base_url=url)
        self.session = ""

    async def drop_connections(self) -> None:
        """Forget all connections and cookies: a clone has the same ones, and the same keys of TLS."""
        old, self.http = self.http, httpx.AsyncClient(base_url=self.url)
        await old.aclose()

    async def authenticate(self) -> None:
        """Open a session as the present incarnation; the server gives each incarnation one."""
        self.session = ""
        incarnation = self.clock.incarnation
        answer = await self.http.post("/sessions", content=str(incarnation))
        session = answer.raise_for_status().text
        if self.clock.incarnation == incarnation:  # else restored meanwhile: the callback opens another
            self.session = session

    async def ask(self, what: str) -> str:
        """Ask, unless this machine was restored and the callbacks have not finished: then ClockDisruptedError."""
        _ = self.clock.incarnation
        answer = await self.http.get(what, headers={"Authorization": f"Bearer {self.session}"})
        return answer.raise_for_status().text


async def main(url: str) -> None:
    """Ask once a second, as a machine that may be cloned."""
    async with open_clock() as clock:
        client = Client(clock, url)
        register_after_restore(reseed_python)  # first, because whatever comes after it may draw
        register_after_restore(client.drop_connections)
        register_after_restore(client.authenticate)
        async with callbacks(clock):
            while True:  # inside: a restore from here on is not missed
                try:
                    if not client.session:
                        await client.authenticate()
                    print(await client.ask("/work"), flush=True)
                except (ClockDisruptedError, httpx.TransportError) as exc:
                    # Restored meanwhile: ask again, as the other machine.
                    print(f"not answered: {exc!r}", file=sys.stderr)
                await anyio.sleep(1)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
