"""Whether a segment is of this boot: by the boot_id that a writer keeps with the file, or else by the file's time.

Readers and the next writer must agree: what readers take for this boot's is continued, and nothing else.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.earlier_boot import ANOTHER_BOOT, BOOT_ATTRIBUTE, forget_boot, require_attributes
from kit.programs import path_of
from vmclock_async import Clock, ClockDisruptedError, SegmentReader, SegmentWriter, VMClockBody
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

BODY = VMClockBody(disruption_marker=5)
HOUR_NS = 3600 * 10**9


def boot_ns() -> int:
    """When this machine booted, of CLOCK_REALTIME, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def set_time(path: Path, ns: int) -> None:
    """The file at *path* was last written at *ns*, says its time."""
    os.utime(path, ns=(ns, ns))


@pytest.fixture
def segment(segment_path: Path) -> Path:
    """A segment that a writer of this boot has left, with its boot_id."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(BODY)
    require_attributes(segment_path)
    return segment_path


def is_of_this_boot(path: Path) -> bool:
    """What readers say of it, and the next writer; they agree."""
    with SegmentReader(path) as reader:
        said = reader.of_this_boot
    with SegmentWriter(path, size=112) as writer:
        assert writer.cold is not said
    return said


TIMES = [
    pytest.param(lambda: boot_ns() - HOUR_NS, False, id="before-boot"),
    pytest.param(lambda: (boot_ns() + time.time_ns()) // 2, True, id="since-boot"),
    pytest.param(lambda: time.time_ns() + HOUR_NS, False, id="ahead"),
]


@pytest.mark.parametrize(("ns", "_by_time"), TIMES)
def test_boot_id_of_now_decides_whatever_the_time_says(
    segment: Path, ns: Callable[[], int], _by_time: bool
) -> None:
    """A clock that was set since, forward or back, or a time namespace: the segment is continued."""
    set_time(segment, ns())
    assert is_of_this_boot(segment)


@pytest.mark.parametrize(("ns", "_by_time"), TIMES)
def test_another_boot_id_decides_whatever_the_time_says(
    segment: Path, ns: Callable[[], int], _by_time: bool
) -> None:
    """On a machine without a battery for its clock, a file of an earlier boot may have a time of this one."""
    os.setxattr(segment, BOOT_ATTRIBUTE, ANOTHER_BOOT)
    set_time(segment, ns())
    assert not is_of_this_boot(segment)


@pytest.mark.parametrize(("ns", "by_time"), TIMES)
def test_without_a_boot_id_the_time_decides(segment_path: Path, ns: Callable[[], int], by_time: bool) -> None:
    """A segment of ClockBound's writer, or on a file system that keeps none."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(BODY)
    forget_boot(segment_path)
    set_time(segment_path, ns())
    assert is_of_this_boot(segment_path) is by_time


def test_clock_set_back_between_two_publishers_is_no_cold_start(segment: Path) -> None:
    """Readers see neither a page without a body nor a marker that goes to 0 and comes back."""
    set_time(segment, time.time_ns() + 3 * 10**9)
    with SegmentWriter(segment, size=112) as writer:
        assert (writer.cold, writer.body, writer.last_marker) == (False, BODY, 5)


def test_opening_keeps_nothing_and_the_first_commit_does(segment: Path) -> None:
    """A writer that dies before its first commit has not said that the page is of this boot."""
    os.setxattr(segment, BOOT_ATTRIBUTE, ANOTHER_BOOT)
    with SegmentWriter(segment, size=112) as writer:
        assert BOOT_ATTRIBUTE not in os.listxattr(segment)
        writer.write(BODY)
        assert os.getxattr(segment, BOOT_ATTRIBUTE) != ANOTHER_BOOT
    assert is_of_this_boot(segment)


def test_segment_that_is_continued_gets_its_boot_id_with_the_first_commit(segment: Path) -> None:
    """One that was begun without: by ClockBound's writer, or by one of ours before."""
    forget_boot(segment)
    with SegmentWriter(segment, size=112) as writer:
        assert not writer.cold
        writer.write(BODY)
    set_time(segment, 1)
    assert is_of_this_boot(segment)


def test_clock_reads_what_is_of_this_boot(segment_path: Path) -> None:
    """now() goes by the same rule."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(make_body(), counter_id=COUNTER_ID)
        require_attributes(segment_path)
        set_time(segment_path, 1)
        with Clock(segment_path, fence=None) as clock:
            assert clock.now().error_ns > 0
        os.setxattr(segment_path, BOOT_ATTRIBUTE, ANOTHER_BOOT)
        set_time(segment_path, time.time_ns())
        with (
            Clock(segment_path, fence=None) as clock,
            pytest.raises(ClockDisruptedError, match="before this machine"),
        ):
            clock.now()


BOOT_ID = "/proc/sys/kernel/random/boot_id"


def in_namespace(setup: str, path: Path, *flags: str) -> list[str]:
    """What the script prints in namespaces of its own, where *setup* was run first."""
    command = ["unshare", "--user", "--map-root-user", "--mount", *flags, "sh", "-ec"]
    command += [f'{setup}\nexec "$1" "$2" "$3"', "sh", sys.executable, path_of("boots"), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if result.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no such namespaces here: {result.stderr}")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(f"mount --bind /dev/null {BOOT_ID}", id="hidden"),
        pytest.param(
            f'echo {ANOTHER_BOOT.decode()} > "$3.id"; mount --bind "$3.id" {BOOT_ID}', id="a-containers-own"
        ),
        pytest.param("mount -t tmpfs tmpfs /proc/sys", id="no-proc-sys"),
    ],
)
def test_boot_id_that_is_not_the_kernels_is_none(segment: Path, setup: str) -> None:
    """In a hardened unit, or with systemd-nspawn's own number, the time decides; a commit leaves no boot_id then."""
    assert in_namespace(setup, segment) == ["True", "False", "[]"]
    set_time(segment, 1)
    assert in_namespace(setup, segment) == ["False", "True", "[]"]


def test_time_namespace_moves_no_boot(segment: Path) -> None:
    """CLOCK_BOOTTIME of its own says that the machine booted later than the segment was written."""
    with SegmentWriter(segment, size=112) as writer:
        writer.write(BODY)
    set_time(segment, (boot_ns() + time.time_ns()) // 2)
    up_s = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    assert in_namespace(":", segment, "--time", "--boottime", str(-up_s + 1))[:2] == ["True", "False"]


def test_file_that_is_mounted_alone_has_its_boot_id(segment: Path) -> None:
    """As into a container: it is kept with the file, not in its directory."""
    set_time(segment, 1)
    alone = segment.with_name("alone")
    alone.touch()
    assert in_namespace(f'mount --bind "{segment}" "$3"', alone)[:2] == ["True", "False"]
