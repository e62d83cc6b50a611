"""The thread that wakes readers, in place of the writer: that nothing is lost, left behind or kept quiet."""

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from kit.stand_ins import compiled, preloaded
from vmclock_async import SegmentReader, SegmentWriter, VMClockBody

Play = Callable[[str], object]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is futimens(2) to a process, made by the machine's C compiler."""
    return compiled("futimens", tmp_path_factory.mktemp("futimens"))


@pytest.fixture
def play(stand_in: Path, segment_path: Path, run_script: Callable[..., str]) -> Play:
    """Run a function of the program `waker` in a process that has the stand-in."""
    return lambda how: run_script("waker", segment_path, how, environment=preloaded(stand_in))


def test_first_waking_is_the_writers_and_the_others_a_threads(play: Play) -> None:
    """So the first commit of a boot has its mtime at once, and a single commit needs no thread."""
    play("first")


def test_waking_that_takes_long_is_not_the_writers(play: Play) -> None:
    """Commits go on meanwhile, and the wakings that fall due are one: after it, not with it."""
    play("takes long")


def test_closing_ends_the_thread_after_the_last_waking(play: Play) -> None:
    """Who waits hears of the last commit, and nothing is left."""
    play("close")


def test_waking_that_falls_due_while_another_ends_is_not_lost(play: Play) -> None:
    """The thread has done its call, and not come back from it: what is due by now is done before it goes."""
    play("due meanwhile")


def test_process_that_ends_without_closing_ends(play: Play) -> None:
    """The thread holds nothing that the interpreter waits for."""
    play("no close")


def test_what_the_thread_could_not_do_the_next_commit_tells(play: Play) -> None:
    """Each failure once, with its errno; the commits are there all the same."""
    play("refused once")


def test_signals_are_not_the_threads(play: Play) -> None:
    """It blocks them all: a handler runs where the program expects it, and no call there is cut short in its place."""
    play("signals")


def test_filter_that_kills_who_asks_for_a_schedule_is_no_end(play: Play) -> None:
    """As systemd's SystemCallFilter=~@resources: the thread is there, and asks for nothing."""
    play("killed for a schedule")


def test_without_a_thread_the_writer_wakes(play: Play) -> None:
    """Where none may be started, each waking is the writer's own, as the first is."""
    play("no thread")


def test_fork_leaves_the_thread_to_the_parent(play: Play) -> None:
    """The child has neither page nor thread, closes and ends in good order, and can open a segment of its own."""
    play("fork")


@pytest.mark.parametrize("refusal", ["EACCES", "EPERM"])
def test_writer_that_may_not_set_times_wakes_all_the_same(play: Play, refusal: str) -> None:
    """A reader hears of each commit by inotify, the file's mtime says when that was, and no byte is another."""
    play(refusal)


def test_writer_may_give_up_its_privileges_after_opening(
    run_script: Callable[..., str], segment_path: Path
) -> None:
    """Commits go on as a user who could not open the segment; to who has no privileges nothing changes."""
    run_script("write_on_as_nobody", segment_path)
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.counter_value == 5


@pytest.mark.long
@pytest.mark.anyio
async def test_no_commit_is_left_asleep_when_a_row_of_commits_ends(segment_path: Path) -> None:
    """The thread stays awake for a while after commits in a row, and goes to sleep: whenever one comes, it is heard."""
    pauses = random.Random(5)
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody())
        reader = SegmentReader(segment_path)
        heard = anyio.Event()

        async def hear(last: int) -> None:
            seen = last
            while seen != last + 6:
                seen = (await reader.wait_changed(seen, poll_interval=3600)).seq_count
            heard.set()

        async with anyio.create_task_group() as tasks:
            for number in range(500):
                heard = anyio.Event()
                tasks.start_soon(hear, writer.seq_count)
                await anyio.sleep(pauses.uniform(0.0005, 0.004))
                for _ in range(3):
                    writer.write(VMClockBody(counter_value=number))
                with anyio.fail_after(20):
                    await heard.wait()
        reader.close()
