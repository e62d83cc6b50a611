"""The file in which the kernel states how far chronyd's own reference clock may be off."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import anyio
import pytest

from kit.chrony_source import running, settings
from kit.exchanges import RAW, estimator, exchange
from kit.fitness import fit
from kit.notes import Notes, contains_realtime
from kit.played_chronyd import PlayedChronyd
from kit.waits import BOUND_S, until
from vmclock_async import SourceUnavailableError
from vmclock_async.testing import check_source
from vmclock_chrony import ChronySource
from vmclock_chrony.connection import Connection
from vmclock_chrony.reference import BUSY_IN_A_ROW, ReferenceFile
from vmclock_chrony.source import _Run, _Trust, _Warnings

pytest.importorskip("pychrony")

MS = 10**6
SECOND = Fraction(10**9)
UPDATES = 65
"""64 samples (MAX_SAMPLES of chronyd), the first of which may have been taken before the first of 64 updates."""
REMEDY = "name the file of the clock that chronyd follows .* or remove this setting and set chrony.reference_error"


@pytest.fixture
def stated(tmp_path: Path) -> Path:
    """A file as the driver ena has it: a number and a line's end."""
    path = tmp_path / "phc_error_bound"
    path.write_text(f"{3 * MS}\n")
    return path


# The file


def test_largest_of_the_last_values_counts(stated: Path) -> None:
    """chronyd's estimate rests on samples that were taken while an earlier value held, however often it is read: a
    value counts until chronyd has made 65 updates more."""
    file = ReferenceFile(stated)
    for update, value in enumerate((70, 12, 50, 13)):
        stated.write_text(f"{value}\n")
        file.read(SECOND * update)
    for update in range(4, UPDATES):
        for _ in range(3):
            assert file.error_ns == 70
            file.read(SECOND * update)
    file.read(SECOND * UPDATES)
    assert file.error_ns == 50
    for update in (1, 2):
        file.read(SECOND * (UPDATES + update))
    assert file.error_ns == 13


def test_largest_value_during_an_update_counts(stated: Path) -> None:
    """chronyd may have taken the sample at any moment since its update before, whose ref_time its slews move."""
    file = ReferenceFile(stated)
    for slewed_ms, value in enumerate((7, 9, 8)):
        stated.write_text(f"{value}\n")
        file.read(SECOND + slewed_ms * MS)
    for update in range(2, UPDATES + 1):
        file.read(SECOND * update)
    assert file.error_ns == 9
    file.read(SECOND * (UPDATES + 1))
    assert file.error_ns == 8


@pytest.mark.parametrize(
    "text", ["", "\n", "0\n", "00\n", "-5\n", "+5\n", "1.5\n", "1e3\n", "none\n", "\0\0\0", "12 ns\n", "9" * 16]
)
def test_file_without_a_value_bounds_nothing(stated: Path, text: str) -> None:
    """Nothing that is no number of nanoseconds, and no zero, is taken for a bound; the line names what was found."""
    file = ReferenceFile(stated)
    file.read()
    stated.write_text(text)
    message = rf"{re.escape(str(stated))} .* holds .*, not a number of nanoseconds above 0, .*{REMEDY}"
    with pytest.raises(SourceUnavailableError, match=message):
        file.read()


def _vanish(path: Path) -> None:
    path.unlink()


def _become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "seen"),
    [(_vanish, "cannot be read"), (_become_a_directory, "cannot be read"), (_become_a_fifo, "holds ''")],
)
def test_file_that_cannot_be_read_is_named(stated: Path, change: Callable[[Path], None], seen: str) -> None:
    """A file that vanished, or is something else, is one line with the remedy; a FIFO is not waited for."""
    change(stated)
    with pytest.raises(SourceUnavailableError, match=f"{re.escape(str(stated))} .*{seen}.*{REMEDY}"):
        ReferenceFile(stated).read()


def test_path_that_no_file_can_have_is_named() -> None:
    """It is an error of the setting's value, and not of the program."""
    with pytest.raises(SourceUnavailableError, match=r"cannot be read .*null byte"):
        ReferenceFile(Path("a\0b")).read()


def test_busy_device_is_waited_for(stated: Path) -> None:
    """A device that answers nobody for a while has no value then; only if that lasts is the source unavailable."""
    answers: list[bytes | OSError] = []

    def read(path: Path) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    busy = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    file = ReferenceFile(stated, read=read)
    for _ in range(2):
        answers += [busy] * (BUSY_IN_A_ROW - 1)
        while answers:
            file.read()
            assert file.is_busy
        answers.append(b"5\n")
        file.read()
        assert not file.is_busy
    assert file.error_ns == 5
    answers += [busy] * BUSY_IN_A_ROW
    for _ in range(BUSY_IN_A_ROW - 1):
        file.read()
    with pytest.raises(SourceUnavailableError, match="busy"):
        file.read()


# The source


@fit
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they hold on every loop alike, and take seconds
async def test_promises_are_kept_without_the_file(played: PlayedChronyd, stated: Path) -> None:
    """Every promise of ``Source`` where the file holds no value: nothing is measured, and nothing is left open."""
    stated.write_text("0\n")
    assert await check_source(lambda: ChronySource(settings(played.address, reference_error_path=stated))) == ()


def test_stated_error_is_added() -> None:
    """All of it, beside the setting, under a name of its own."""
    measuring = estimator(reference_error_ns=2 * MS)
    without = measuring.measure(exchange(), RAW)
    measuring = estimator(reference_error_ns=2 * MS)
    with_it = measuring.measure(exchange(), RAW, stated_ns=3 * MS)
    assert without.time_maxerror_nanosec is not None
    assert with_it == without.model_copy(update={"time_maxerror_nanosec": without.time_maxerror_nanosec + 3 * MS})
    assert measuring.explanation is not None
    terms = {term.name: term.ns for term in measuring.explanation.terms}
    assert (terms["reference clock"], terms["stated"]) == (2 * MS, 3 * MS)


@fit
def test_file_is_read_with_each_request(
    played: PlayedChronyd, stated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bound has what the file says now, beside the setting; no warning asks for either."""
    played.follow_reference_clock(b"PHC0")
    notes = Notes()
    source = ChronySource(settings(played.address, reference_error="0.2", reference_error_path=str(stated)))
    assert "synchronized to PHC0" in source.probe()

    def bound_ns() -> int:
        return notes.updates[-1].time_maxerror_nanosec or 0 if notes.updates else 0

    async def script() -> None:
        async with running(source, notes):
            await until(lambda: 203 * MS <= bound_ns() < 300 * MS)
            stated.write_text(f"{500 * MS}\n")
            await until(lambda: 700 * MS <= bound_ns() < 800 * MS)

    caplog.set_level(logging.WARNING)
    anyio.run(script)
    assert contains_realtime(notes.last)
    assert not caplog.messages


@fit
def test_without_the_file_there_is_no_measurement(played: PlayedChronyd, stated: Path) -> None:
    """Once the file has lost its value nothing more is measured, and the source is unavailable until it has one. The
    values of before still count then: chronyd was there all the time."""
    stated.write_text(f"{500 * MS}\n")
    notes = Notes()
    source = ChronySource(settings(played.address, reference_error_path=str(stated)))

    async def script() -> None:
        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:

                async def empty() -> None:
                    await until(lambda: notes.updates)
                    stated.write_text("")

                tasks.start_soon(empty)
                with pytest.raises(SourceUnavailableError, match="holds ''"):
                    await source.run(notes)
        stated.write_text("7\n")
        measured = len(notes.updates)
        async with running(source, notes):
            await until(lambda: len(notes.updates) > measured)

    anyio.run(script)
    assert all((update.time_maxerror_nanosec or 0) >= 500 * MS for update in notes.updates)
    stated.unlink()
    with pytest.raises(SourceUnavailableError, match="cannot be read"):
        source.probe()


@fit
def test_nothing_is_measured_while_the_device_is_busy(played: PlayedChronyd, stated: Path) -> None:
    """The measurement before still holds, and goes on to; a new one would have no bound."""
    answers: Iterator[bytes | None] = iter((b"7\n", None, None, b"7\n"))

    def read(path: Path) -> bytes:
        if (answer := next(answers)) is None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return answer

    notes, counts = Notes(), list[int]()
    chosen = settings(played.address)

    async def script() -> None:
        with Connection(chosen.address) as connection:
            run = _Run(chosen, connection, notes, _Warnings(chosen), ReferenceFile(stated, read=read))
            for _ in range(4):
                await run.poll(_Trust(0, None))
                counts.append(len(notes.updates))

    anyio.run(script)
    assert counts == [1, 1, 1, 2]
