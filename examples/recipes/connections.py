"""A client whose connections and session are not those of a clone."""

import sys

import anyio
import httpx

from vmclock_async import Clock, open_clock
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
        answer = await self.http.post("/sessions", content=str(self.clock.incarnation))
        self.session = answer.raise_for_status().text

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
            await client.authenticate()  # inside: a restore from here on is not missed
            while True:
                print(await client.ask("/work"), flush=True)
                await anyio.sleep(1)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
