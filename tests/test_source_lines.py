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
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._publishing.loop_watch import SOURCE
from vmclock_async._publishing.source_lines import RUN, _Limit

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
async def test_numbers_that_an_author_filled_in_make_no_other_line(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do fields of the author's own. What was held back is said when the run ends."""

    def flood() -> None:
        for number in range(50):
            PLUGIN.warning(f"process {number} sent what is no report", extra={"source": "its own"})

    assert await said(segment_path, caplog, {"told": flood}) == [
        ("process 0 sent what is no report", "its own"),
    ]
    assert "process 49 sent what is no report (99 times in 0 s; this is the last)" in caplog.text


def test_line_whose_arguments_do_not_fit_ends_nothing_a_minute_later(caplog: pytest.LogCaptureFixture) -> None:
    """It is shown as it can be."""
    now = 0.0
    complaints = Complaints(PLUGIN, now=lambda: now)
    record = logging.LogRecord("stranger", logging.WARNING, "", 0, "%d fields", ("many",), None)
    told, run = SOURCE.set("told"), RUN.set(complaints)
    try:
        limit = _Limit(complaints)
        assert [limit.filter(record) for _ in range(2)] == [True, False]
    finally:
        SOURCE.reset(told)
        RUN.reset(run)
    now = 61.0
    complaints.say_what_is_due()
    (line,) = caplog.messages
    assert line == "'%d fields', a log line whose arguments do not fit (1 times in 61 s; this is the last)"


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
