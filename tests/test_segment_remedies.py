"""Openings that the system refuses: the error says what it was, and a writer that fails leaves nothing."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.programs import path_of
from kit.stand_ins import preloaded
from vmclock_async import SegmentWriter, VMClockBody

BODY = VMClockBody(disruption_marker=5)
RunScript = Callable[..., str]


@pytest.mark.parametrize(
    ("variable", "number", "said"),
    [
        pytest.param("FLOCK_ERRNO", errno.ENOLCK, "gives no locks: choose a path on tmpfs", id="flock-ENOLCK"),
        pytest.param("FLOCK_ERRNO", errno.EPERM, "a sandbox or a security module forbids it", id="flock-EPERM"),
        pytest.param(
            "FLOCK_ERRNO", errno.EOPNOTSUPP, "gives no locks: choose a path on tmpfs", id="flock-EOPNOTSUPP"
        ),
        pytest.param("FSYNC_ERRNO", errno.EIO, "its disk or its server failed", id="fsync-EIO"),
        pytest.param(
            "FSYNC_ERRNO", errno.EINVAL, "cannot hold a segment: choose a path on tmpfs", id="fsync-EINVAL"
        ),
        pytest.param("FSYNC_ERRNO", errno.EDQUOT, "make room, or choose another path", id="fsync-EDQUOT"),
    ],
)
@pytest.mark.parametrize("below", ["shm0", "new/deeper/shm0"])
def test_what_the_system_refuses_is_an_error_that_leaves_nothing(
    segment_path: Path, run_script: RunScript, refusing: Path, variable: str, number: int, said: str, below: str
) -> None:
    """flock and fsync: a SegmentError with the remedy; no lock, no segment and no directory stays behind."""
    environment = {**preloaded(refusing), variable: str(number)}
    path = segment_path.parent / below
    printed = run_script("try_writer", path, environment=environment)
    assert printed.startswith(f"{path}: cannot ")
    assert f"({os.strerror(number)})" in printed
    assert said in printed
    assert list(segment_path.parent.iterdir()) == []


@pytest.fixture
def segment(segment_path: Path) -> Path:
    """A segment that a writer has left, and that only its owner may write."""
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
    return segment_path


def test_failed_opening_leaves_a_segment_that_was_there(
    segment: Path, run_script: RunScript, refusing: Path
) -> None:
    """Only what this opening has created goes away with it."""
    os.truncate(segment, 0)
    environment = {**preloaded(refusing), "FSYNC_ERRNO": str(errno.EIO)}
    assert "cannot open it for writing" in run_script("try_writer", segment, environment=environment)
    assert list(segment.parent.iterdir()) == [segment]


def test_too_many_open_files_are_no_matter_of_write_access(segment_path: Path, run_script: RunScript) -> None:
    """Wherever in the opening the limit is met, the message is of the limit, and nothing is left."""
    *lines, last = run_script("few_descriptors", segment_path).splitlines()
    for line in [*lines, last]:
        assert "(Too many open files); this process has as many files open as it may: raise its limit" in line
        assert "write access" not in line
    assert list(segment_path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param("size=64k,ro", "(Read-only file system); its file system is read-only", id="read-only"),
        pytest.param("nr_inodes=1", "(No space left on device); its file system is full", id="full"),
    ],
)
def test_file_system_that_takes_no_file_is_no_matter_of_write_access(
    segment_path: Path, options: str, said: str
) -> None:
    """The message is of what the file system is: read-only, or full."""
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && exec "$3" "$4" "$2/shm0"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    command += [options, str(segment_path.parent), sys.executable, path_of("try_writer")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if "unshare:" in result.stderr or "mount:" in result.stderr:
        pytest.skip(f"no user namespaces here: {result.stderr}")
    assert (result.returncode, result.stderr) == (0, "")
    assert said in result.stdout
    assert "write access" not in result.stdout
