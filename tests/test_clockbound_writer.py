"""The writer of ClockBound's segments: its generations, what it makes of what is there, and that it is the only one."""

import os
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.clockbound import MAGIC, NS, SYNCHRONIZED, UNKNOWN, Client, coarse_ns, fields, put, segment
from kit.forks import Started
from kit.told_world import open_descriptors
from vmclock_async import _core
from vmclock_async.clockbound import ErrorBound, ErrorBoundStatus, ErrorBoundWriter, Layout
from vmclock_async.errors import SegmentError, SegmentInUseError

Commit = Callable[[bytes, bytes], tuple[bytes, bytes, int]]
LAYOUTS = pytest.mark.parametrize("layout", list(Layout))


def bound(bound_ns: int = 5000) -> ErrorBound:
    """A bound of now."""
    as_of_ns = coarse_ns()
    return ErrorBound(
        as_of_ns=as_of_ns,
        void_after_ns=as_of_ns + 60 * NS,
        bound_ns=bound_ns,
        max_drift_ppb=1000,
        status=ErrorBoundStatus.SYNCHRONIZED,
    )


@pytest.fixture
def path(segment_path: Path) -> Path:
    """The place of ClockBound's segment, in a directory that is not there yet."""
    return segment_path.parent / "clockbound/shm0"


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    """Runs a commit to a page, and returns the page at the fence inside it, the page after it, and the result."""
    program = tmp_path_factory.mktemp("commit") / "commit"
    source = Path(__file__).with_name("kit") / "clockbound_commit.c"
    headers = Path(__file__).parent.parent / "csrc"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{headers}"]
    subprocess.run(["cc", *flags, "-o", program, source], check=True)

    def run(page: bytes, contents: bytes) -> tuple[bytes, bytes, int]:
        out = subprocess.check_output([program, page.hex(), contents.hex()], text=True)
        during, after, generation = out.split()
        size = len(contents)
        return bytes.fromhex(during)[:size], bytes.fromhex(after)[:size], int(generation)

    return run


@pytest.mark.parametrize(("before", "during", "after"), [(2, 3, 4), (7, 7, 8), (65_534, 65_535, 2), (0, 1, 2)])
def test_generation_is_odd_while_it_is_written(commit: Commit, before: int, during: int, after: int) -> None:
    """It goes on, wraps to 2 and never to 0; the odd one of a dead writer is kept; all else is the old contents."""
    old, new = segment(generation=before, bound=1), segment(generation=99, bound=2)
    at_fence, at_end, result = commit(old, new)
    assert fields(at_fence) == {**fields(old), "generation": during}
    assert fields(at_end) == {**fields(new), "generation": after}
    assert result == after


@pytest.mark.parametrize(
    "old", [segment(3), b"VCLK" + segment()[4:], segment(version=1), segment(size=88), bytes(80)], ids=range(5)
)
def test_what_begins_afresh_has_version_0_meanwhile(commit: Commit, old: bytes) -> None:
    """Clients of what was there before keep their last copy: its generation goes on under version 0."""
    at_fence, at_end, result = commit(old, segment())
    (generation,) = struct.unpack_from("<H", old, 14)
    assert struct.unpack_from("<IHH", at_fence, 8) == (80, 0, generation | 1)
    assert fields(at_end) == {**fields(segment()), **fields(at_end), "generation": result}
    assert fields(at_end)["version"] == 2


def test_core_refuses_what_is_no_segment(tmp_path: Path) -> None:
    """A length that is none, a page that may not be written, a closed one: nothing is stored."""
    path = put(tmp_path / "shm", segment())
    page = _core.Page(os.open(path, os.O_RDWR), writable=True)
    for length in (0, 8, 81, 112):
        with pytest.raises(ValueError, match="16 to 104 bytes"):
            _core.clockbound_commit(page, bytes(length))
    with pytest.raises(TypeError):
        _core.clockbound_commit(page, bytearray(80))  # type: ignore[arg-type]
    page.close()
    with pytest.raises(ValueError, match="closed"):
        _core.clockbound_commit(page, segment())
    reading = _core.Page(os.open(path, os.O_RDONLY))
    with pytest.raises(ValueError, match="read-only"):
        _core.clockbound_commit(reading, segment())
    reading.close()


@LAYOUTS
def test_file_is_whole_before_it_has_its_name(path: Path, layout: Layout) -> None:
    """Before the first bound a client can open it, and reads UNKNOWN; the umask does not hide it."""
    umask = os.umask(0o077)
    try:
        with ErrorBoundWriter(path, layout=layout) as writer:
            client = Client(path, layout=layout)
            assert client.now().status == UNKNOWN
            assert client.read()["generation"] == 2
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert writer.write(bound()) == 4
            assert client.now().status == SYNCHRONIZED
            client.close()
    finally:
        os.umask(umask)
    assert [entry.name for entry in path.parent.iterdir()] == ["shm0"]


def test_next_writer_goes_on_in_the_same_file(path: Path) -> None:
    """Clients see no gap, in the file that they opened: the last bound holds until the next one."""
    with ErrorBoundWriter(path) as writer:
        writer.write(bound(1111))
        client = Client(path)
    with ErrorBoundWriter(path) as writer:
        assert client.read()["bound"] == 1111
        assert client.now().status == SYNCHRONIZED
        assert writer.write(bound(2222)) == 6
        assert client.read()["bound"] == 2222
    client.close()


def test_writer_over_the_generations_end(path: Path) -> None:
    """After 65534 comes 2."""
    put(path, segment(generation=65_532))
    with ErrorBoundWriter(path) as writer:
        assert [writer.write(bound()) for _ in range(3)] == [65_534, 2, 4]


@pytest.mark.parametrize(
    "old", [segment(generation=9), segment(3), bytes(200), segment(version=0), segment(drift=NS)], ids=range(5)
)
def test_what_cannot_be_read_is_repaired_at_once(path: Path, old: bytes) -> None:
    """The commit of a dead writer, another layout, anything else: clients read UNKNOWN, in the same file."""
    inode = put(path, old).stat().st_ino
    with ErrorBoundWriter(path):
        client = Client(path)
        assert client.now().status == UNKNOWN
        assert client.read()["bound"] == 10**18  # it is a whole one, and not what a client has before the first
        assert path.stat().st_ino == inode
        client.close()


@pytest.mark.parametrize("old", [b"", segment()[:79]], ids=["empty", "cut"])
def test_file_too_short_for_a_client_is_replaced(path: Path, old: bytes) -> None:
    """Nobody can have mapped it; a file that a dead writer left half made beside it is no obstacle."""
    put(path, old)
    put(path.with_name(".shm0.new"), b"half")
    with ErrorBoundWriter(path):
        assert Client(path).now().status == UNKNOWN
    assert [entry.name for entry in path.parent.iterdir()] == ["shm0"]


def test_second_writer_is_refused(path: Path) -> None:
    """The error names the process; nothing was touched, and nothing is left open."""
    with ErrorBoundWriter(path) as writer:
        writer.write(bound(1111))
        before, held = path.read_bytes(), open_descriptors()
        with pytest.raises(SegmentInUseError, match=f"process {os.getpid()}"):
            ErrorBoundWriter(path)
        assert path.read_bytes() == before
        assert not open_descriptors() - held
    ErrorBoundWriter(path).close()


def test_other_program_is_noticed(path: Path) -> None:
    """ClockBound's daemon knows no lock: its commit, or its file in the place of this one, is an error that says so."""
    with ErrorBoundWriter(path) as writer:
        writer.write(bound())
        put(path, segment(generation=40))
        with pytest.raises(SegmentInUseError, match=r"from 4 to 40; is ClockBound's daemon running\?"):
            writer.write(bound())
    with ErrorBoundWriter(path) as writer:
        put(path.with_name("new"), segment()).rename(path)
        with pytest.raises(SegmentInUseError, match="another file is in its place"):
            writer.write(bound())
    with ErrorBoundWriter(path) as writer:
        path.unlink()
        with pytest.raises(SegmentError, match="was removed"):
            writer.write(bound())


def test_no_client_gets_a_torn_copy(path: Path, start_script: Callable[..., Started]) -> None:
    """Beside commits without a rest, over the generation's end too: all fields of a copy are of one commit."""
    put(path, segment(generation=65_000))
    client = Client(path)
    process = start_script("commit_bounds", path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    reads, generations = 0, set[int]()
    while reads < 5000 or len(generations) < 2:
        reads += 1
        copy = client.read()
        if copy["bound"] != 10_000:  # else it is the one from before
            assert {copy[name] for name in ("as_of_s", "as_of_ns", "void_after_s", "void_after_ns")} == {
                copy["bound"]
            }
            assert copy["drift"] == copy["marker"] == copy["bound"]
            generations.add(copy["generation"])
    assert not any(generation % 2 for generation in generations)
    client.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "is a symbolic link"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: os.mkfifo(path), "is a FIFO"),
        (lambda path: put(path, segment()).chmod(0o666), "others may write it too"),
    ],
)
def test_what_a_writer_must_not_take_is_refused(path: Path, make: Callable[[Path], object], words: str) -> None:
    """As for our own segments; and the lock is gone again."""
    path.parent.mkdir()
    make(path)
    with pytest.raises(SegmentError, match=words):
        ErrorBoundWriter(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["shm0"]


def test_child_of_a_fork_does_not_write(path: Path, run_script: Callable[..., str]) -> None:
    """It gets an error that says so; its parent goes on."""
    put(path, segment(generation=20))
    child, parent = run_script("fork_bound_writer", path).splitlines()
    assert child.startswith("the writer is closed; the child of a fork")
    assert parent == "22"


@pytest.mark.parametrize("changes", [{"bound_ns": 2**63}, {"disruption_marker": -1}, {"max_drift_ppb": 2**32}])
def test_bound_that_no_segment_can_hold(path: Path, changes: dict[str, Any]) -> None:
    """It is refused, and what was there before stays."""
    with ErrorBoundWriter(path) as writer:
        writer.write(bound())
        before = path.read_bytes()
        with pytest.raises(ValueError, match="no ClockBound segment can hold"):
            writer.write(replace(bound(), **changes))
        assert path.read_bytes() == before


def test_closed_writer_says_so(path: Path) -> None:
    """It may be closed again; the segment stays, and its lock goes."""
    writer = ErrorBoundWriter(path)
    writer.close()
    writer.close()
    with pytest.raises(SegmentError, match="closed"):
        writer.write(bound())
    assert path.read_bytes()[:8] == MAGIC
    assert not path.with_name("shm0.lock").exists()
