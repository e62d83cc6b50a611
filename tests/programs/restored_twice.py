"""Print what two machines have after they were restored from one state, as JSON: python restored_twice.py DATABASE URL.

A fork with its parent's marks of a process and of ``random`` stands for a restored machine: it has all of the state.
With "unchanged" after URL, the two are not restored, but only go on.
"""

import json
import os
import random
import sqlite3
import sys
from pathlib import Path

import anyio

for folder in ("tests", "examples/recipes"):
    sys.path.append(str(Path(__file__).parents[2] / folder))

from connections import Client
from lease_row import SCHEMA, acquire, is_held

from kit.waits import settled
from vmclock_async._segment import belonging
from vmclock_async.restore import callbacks, register_after_restore, reseed_python
from vmclock_async.testing import ManualClock

path, url = sys.argv[1:3]


async def live_on(client: Client, clock: ManualClock) -> dict[str, object]:
    register_after_restore(reseed_python)
    register_after_restore(client.drop_connections)
    register_after_restore(client.authenticate)
    done = anyio.Event()
    register_after_restore(done.set)
    old = client.http
    database = sqlite3.connect(path)
    async with callbacks(clock):
        await settled()
        if "unchanged" not in sys.argv:
            clock.restore()
            await done.wait()
            await settled()
        seen = {
            "incarnation": str(clock.incarnation),
            "session": client.session,
            "nonce": random.random(),
            "has_old_connections": client.http is old,
            "is_held": is_held(database, clock, "leader"),
            "renewed": acquire(database, clock, "leader", 60),
        }
        clock.advance(61)
        return {
            **seen,
            "acquired": acquire(database, clock, "leader", 60),
            "held": is_held(database, clock, "leader"),
        }


with ManualClock(follow_loop=False) as clock:
    client = Client(clock, url)
    client.session = "of the snapshot"
    with sqlite3.connect(path) as database:
        database.execute(SCHEMA)
        acquire(database, clock, "leader", 60)
    database.close()
    state, process = random.getstate(), belonging._process
    lives = []
    for _ in range(2):
        reading, writing = os.pipe()
        if not os.fork():
            random.setstate(state)
            belonging._process = process
            os.write(writing, json.dumps(anyio.run(live_on, client, clock)).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            lives.append(json.loads(pipe.read() or "null"))
        os.wait()
print(json.dumps(lives))
