"""The played segment: real files, as a publisher and a device have them."""

import subprocess
import sys
from pathlib import Path

import pytest

from vmclock_async import Clock, SegmentInUseError, SegmentReader, SegmentWriter
from vmclock_async.abi import OWN_DISRUPTION
from vmclock_async.testing import PlayedSegment, make_body
from vmclock_async.timebase import counter_ticks


def test_segment_is_one_file_throughout(segment: PlayedSegment) -> None:
    """Whatever happens, a reader that has it mapped reads on: one inode, one size, numbers that go up."""
    before, numbers = segment.path.stat(), []
    with SegmentReader(segment.path) as reader, SegmentReader(segment.device) as device:
        for happen in (segment.migrate, segment.die_mid_commit, segment.restore, segment.lose_sync):
            happen()
            numbers.append(reader.seq_count)
        assert device.snapshot().body.disruption_marker == 3
        assert device.snapshot().counter_id == 0xFF, "it tells no time"
        assert not device.snapshot().body.counter_period_frac_sec
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 4
    assert [number % 2 for number in numbers] == [0, 1, 0, 0]
    after = segment.path.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


def test_dead_publisher_leaves_its_place_to_another(segment: PlayedSegment) -> None:
    """As one that was killed: no lock, and an interrupted commit for the next writer to repair."""
    segment.die_mid_commit()
    with SegmentWriter(segment.path) as writer:
        assert writer.interrupted
        writer.write(make_body(disruption_marker=5))
    segment.regain_sync()
    assert segment.body.disruption_marker == 1


def test_fixture_costs_other_tests_nothing() -> None:
    """What every pytest imports is one small module: nothing of the library."""
    script = (
        "import sys, vmclock_pytest; print(*sorted(name for name in sys.modules if name.startswith('vmclock')))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["vmclock_pytest"]


def test_segment_cannot_be_written_twice(segment: PlayedSegment) -> None:
    """A second play on the same files is refused, and leaves the first alone."""
    with pytest.raises(SegmentInUseError):
        PlayedSegment(segment.path.parent)
    segment.migrate()
    assert counter_ticks() > segment.body.counter_value


def test_segment_that_cannot_begin_leaves_no_device_open(tmp_path: Path) -> None:
    """Another writer has the segment: the device is free again for the next try."""
    with SegmentWriter(tmp_path / "shm0"), pytest.raises(SegmentInUseError) as caught:
        PlayedSegment(tmp_path)
    PlayedSegment(tmp_path).close()
    assert "shm0" in str(caught.value)


@pytest.mark.parametrize("has_device", [True, False])
def test_reported_restore_is_played(tmp_path: Path, has_device: bool) -> None:
    """A report is a disruption of the publisher's own; without a device it is the only sign of a restore."""
    with PlayedSegment(tmp_path, has_device=has_device) as machine, Clock(machine.path, fence=None) as clock:
        assert clock.restores_are_seen
        before, first = clock.incarnation, machine.body
        machine.restore()
        assert (clock.incarnation != before) is has_device
        seen, second = clock.incarnation, machine.body
        assert (second.disruption_marker != first.disruption_marker) is has_device
        machine.report_disruption()
        assert clock.incarnation == seen
        assert machine.body.disruption_marker == second.disruption_marker + OWN_DISRUPTION
        machine.report_disruption(restored=True)
        assert (clock.incarnation == seen) is has_device
        assert clock.now()
