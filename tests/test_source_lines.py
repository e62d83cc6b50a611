"""What sources log themselves while a publisher runs them: named, and no line without limit."""

import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kit.sources import Scripted
from vmclock_async import Emit, Publisher

PLUGIN = logging.getLogger("vmclock_async.test_source_lines")
STRANGER = logging.getLogger("kit.test_source_lines")
"""``Scripted`` is of the package kit."""


async def said(
    path: Path, caplog: pytest.LogCaptureFixture, scripts: dict[str, Callable[[], None]]
) -> list[tuple[str, str | None]]:
    """The lines that sources write which do what *scripts* say, each with the source that the record names."""

    def scripted(script: Callable[[], None]) -> Scripted:
        async def run(emit: Emit) -> None:
            script()
            await anyio.to_thread.run_sync(script)  # threads of a source are the source

        return Scripted(run)

    with caplog.at_level(logging.INFO), anyio.fail_after(10):
        await Publisher(path, {name: scripted(script) for name, script in scripts.items()}).run()
    own = [record for record in caplog.records if record.name.endswith("test_source_lines")]
    return sorted((record.getMessage(), getattr(record, "source", None)) for record in own)


@pytest.mark.anyio
@pytest.mark.parametrize("log", [PLUGIN, STRANGER], ids=["ours", "a stranger's"])
async def test_warning_that_a_stranger_can_repeat_is_one_line(
    segment_path: Path, caplog: pytest.LogCaptureFixture, log: logging.Logger
) -> None:
    """Whatever it is about, because that may be chosen; each source and each line have their own."""

    def flood() -> None:
        for number in range(50):
            log.warning("process %d sent what is no report", number)
            log.warning("no room")

    assert await said(segment_path, caplog, {"told": flood, "other": flood}) == [
        ("no room", "other"),
        ("no room", "told"),
        ("process 0 sent what is no report", "other"),
        ("process 0 sent what is no report", "told"),
    ]


@pytest.mark.anyio
async def test_notes_have_ten_lines_at_once(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Below a warning a source tells how its state changes."""

    def change() -> None:
        for number in range(7):
            PLUGIN.info("state %d", number)

    lines = await said(segment_path, caplog, {"told": change})
    assert [line for line, _ in lines] == sorted(f"state {number % 7}" for number in range(10))


@pytest.mark.anyio
async def test_nothing_is_limited_outside_of_a_run(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither afterwards, nor what the program that runs the publisher writes beside it."""
    await said(segment_path, caplog, {"told": lambda: PLUGIN.warning("in the run")})
    for _ in range(3):
        PLUGIN.warning("after it")
    assert [record.getMessage() for record in caplog.records].count("after it") == 3
    assert PLUGIN.filters == []


@pytest.mark.anyio
async def test_two_publishers_limit_their_own_sources(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their sources may have one name."""

    async def flood(emit: Emit) -> None:
        for _ in range(3):
            PLUGIN.warning("no room")
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for name in ("one", "two"):
                tasks.start_soon(Publisher(segment_path.with_name(name), {"told": Scripted(flood)}).run)
    assert [record.getMessage() for record in caplog.records if record.name == PLUGIN.name] == 2 * ["no room"]
