"""Waiting for the tasks of one's own loop."""

import anyio
import anyio.lowlevel


async def settled() -> None:
    """Let the other tasks go on until they wait.

    Not ``wait_all_tasks_blocked()``: on asyncio that looks every 100 ms, and who polls every 50 ms may be awake each
    time, for seconds.
    """
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
