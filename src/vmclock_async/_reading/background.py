"""A task beside a block, for context managers: it ends with the block, and the block's exceptions stay bare."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

__all__ = ("beside",)


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run *work* while the block runs, and cancel it when the block ends; if it fails, so does the block.

    A task group would hand on the block's own exception inside a group, which no caller of ours expects.
    """
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        bare = group.exceptions[0]
        context = bare.__context__
        try:
            raise bare
        finally:
            bare.__context__ = context  # its own context, which raising it replaced by the group
