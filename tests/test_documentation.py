"""The programs that the manual shows do what it says."""

import types
from pathlib import Path

import pytest

from vmclock_async.testing import check_source

DOCS = Path(__file__).parent.parent / "docs"


def first_program(page: str) -> types.ModuleType:
    """The first Python block of *page*, as a module."""
    text = (DOCS / page).read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    module = types.ModuleType("shown")
    exec(compile(code, page, "exec"), module.__dict__)
    return module


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # it holds on every loop alike, and takes seconds
async def test_source_of_the_manual_keeps_every_promise() -> None:
    """An author who begins with it has a source of time that is right."""
    shown = first_program("how-to/source.md")
    (update,) = (await check_source(lambda: shown.MySource(shown.MySettings())))[:1]
    assert update.measures
