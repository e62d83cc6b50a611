"""Another segment at the path of one that readers wait on, on every event loop."""

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from kit.segment_files import BODY, PACKED
from kit.waits import BOUND_S, until_waits
from vmclock_async import SegmentReader, SegmentWriter, Snapshot, VMClockBody
from vmclock_async.errors import SegmentMalformedError

NEVER_S = 3600.0
"""A poll interval that ends no test's wait."""
MakePage = Callable[..., bytes]


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [0.05, NEVER_S])
@pytest.mark.parametrize("waiters", [1, 3])
async def test_path_made_anew_is_a_change_whatever_its_number(
    segment_path: Path, make_page: MakePage, waiters: int, poll_interval: float
) -> None:
    """Every waiter gets the segment of the new inode, though it has the number they have all seen, and soon."""
    segment_path.write_bytes(make_page(seq_count=2))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=poll_interval))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        old_inode = reader.snapshot().inode
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(follow, reader)
            await until_waits(reader, waiters)
            segment_path.unlink()
            # While there is nothing, or nothing committed, it goes on waiting.
            await until_waits(reader, reader.statistics().waits + 2 * waiters)
            with SegmentWriter(segment_path) as writer:
                await until_waits(reader, reader.statistics().waits + 2 * waiters)
                assert seen == []
                assert writer.write(BODY) == 2
        assert reader.statistics().reopened >= 1
        assert reader.snapshot().inode == segment_path.stat().st_ino
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
    assert {snapshot.inode for snapshot in seen} == {segment_path.stat().st_ino}
    assert old_inode != segment_path.stat().st_ino


@pytest.mark.anyio
@pytest.mark.parametrize("waiters", [1, 3])
async def test_path_renamed_over_is_a_change_at_once(
    segment_path: Path, make_page: MakePage, waiters: int
) -> None:
    """Another segment moved over the path wakes every waiter by inotify, and later commits to it do so too."""
    segment_path.write_bytes(make_page(seq_count=2))
    replacement = segment_path.with_name("replacement")
    replacement.write_bytes(make_page(seq_count=2, body=PACKED))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(follow, reader)
            await until_waits(reader, waiters)
            replacement.rename(segment_path)
        assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
        with SegmentWriter(segment_path) as writer:
            async with anyio.create_task_group() as tasks:
                seen.clear()
                waits = reader.statistics().waits
                tasks.start_soon(follow, reader)
                await until_waits(reader, waits + 1)
                writer.write(VMClockBody())
        assert [snapshot.seq_count for snapshot in seen] == [4]
        assert reader.statistics().watching


@pytest.mark.anyio
async def test_replacement_that_one_waiter_finds_is_a_change_for_all(
    segment_path: Path, make_page: MakePage
) -> None:
    """A task that slept while another opened the new file gets it too, whatever its number."""
    segment_path.write_bytes(make_page(seq_count=2))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader, poll_interval: float) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=poll_interval))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        segment_path.unlink()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader, NEVER_S)
            await until_waits(reader, 1)
            tasks.start_soon(follow, reader, 0.01)
            await until_waits(reader, 3)
            replacement = segment_path.with_name("replacement")
            replacement.write_bytes(make_page(seq_count=2, body=PACKED))
            replacement.rename(segment_path)
        assert reader.statistics().reopened == 1
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * 2


@pytest.mark.anyio
async def test_path_replaced_by_no_segment_is_an_error(segment_path: Path, make_page: MakePage) -> None:
    """Waiting does not hide that the path now leads to something that is no segment."""
    segment_path.write_bytes(make_page(seq_count=2))
    garbage = segment_path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        garbage.rename(segment_path)
        with pytest.raises(SegmentMalformedError, match="magic"):
            await reader.wait_changed(2)


@pytest.mark.anyio
async def test_path_that_leads_away_for_a_moment_is_no_change(
    writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found to lead elsewhere, opened again, and it is the same file: then the wait goes on."""
    monkeypatch.setattr(SegmentReader, "is_replaced", lambda reader: True)
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2))

    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            await until_waits(reader, 2)
            writer.write(BODY)
    assert [snapshot.seq_count for snapshot in seen] == [4]


@pytest.mark.anyio
async def test_snapshot_says_of_which_file_the_number_is(segment_path: Path) -> None:
    """A task that was busy while another opened the new file learns of it, though the number is the same."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=1))
    with SegmentReader(segment_path) as reader, anyio.fail_after(5):
        seen = reader.snapshot()
        segment_path.unlink()
        with SegmentWriter(segment_path) as writer:
            writer.write(VMClockBody(disruption_marker=2))
        first = await reader.wait_changed(seen)
        second = await reader.wait_changed(seen)
    assert first == second
    assert (first.seq_count, first.body.disruption_marker) == (seen.seq_count, 2)
