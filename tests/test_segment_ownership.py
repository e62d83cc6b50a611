"""Whose files a writer takes, and what it says of those that it does not.

In /dev/shm anybody may be there first. Who owns a segment, or may write it, can change the time in it, and cut it under
its publisher, which dies of that. Who owns the lock's file can keep every publisher out.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.forks import Started
from kit.programs import path_of
from vmclock_async import SegmentReader, SegmentWriter, VMClockBody
from vmclock_async.errors import SegmentError, SegmentInUseError

STRANGER = 54321
"""A user without a name, and not the one who runs the tests."""
BODY = VMClockBody(disruption_marker=5)
RunScript = Callable[..., str]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")


@pytest.fixture
def segment(segment_path: Path) -> Path:
    """A segment that a writer has left, and that only its owner may write."""
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
    return segment_path


def lock_of(path: Path) -> Path:
    """Where the lock of the segment at *path* lies."""
    return path.with_name(path.name + ".lock")


def state(directory: Path) -> dict[str, object]:
    """Everything below *directory*: nothing that an untouched file may change."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, status.st_ctime_ns, content)
    return found


def refused(path: Path, match: str) -> None:
    """A writer refuses *path* with a SegmentError that matches, and touches nothing beside or below it."""
    before = state(path.parent)
    with pytest.raises(SegmentError, match=match) as caught:
        SegmentWriter(path)
    assert type(caught.value) is SegmentError
    assert str(caught.value).startswith(f"{path}: ")
    assert state(path.parent) == before


# The segment.


@only_root
def test_segment_of_a_strangers_is_refused(segment: Path) -> None:
    """The error says who owns it, by number where there is no name; the file is as it was, and there is no lock."""
    os.chown(segment, STRANGER, -1)
    refused(segment, rf"is owned by a user without a name \(uid {STRANGER}\), who is neither root nor this user; ")
    os.chown(segment, 65534, -1)
    refused(segment, r"is owned by nobody \(uid 65534\)")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622, 0o777])
def test_segment_that_others_may_write_is_refused(segment: Path, mode: int) -> None:
    """Its owner's group, or everybody: the error names the mode and how to change it."""
    segment.chmod(mode)
    refused(segment, rf"others may write it too \(mode {mode:04o}\); forbid that \(chmod go-w\)")


def test_access_list_that_lets_others_write_is_seen(segment: Path) -> None:
    """POSIX ACL: the mode's group bits are its mask."""
    entries = (
        (0x01, 6, 2**32 - 1),
        (0x02, 6, STRANGER),
        (0x04, 4, 2**32 - 1),
        (0x10, 6, 2**32 - 1),
        (0x20, 4, 2**32 - 1),
    )
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(segment, "system.posix_acl_access", acl)
    except OSError as exc:
        pytest.skip(f"this file system has no access lists ({exc.strerror})")
    refused(segment, r"others may write it too \(mode 0664\)")


@only_root
def test_segment_of_this_users_in_a_directory_for_all_is_taken(
    segment_path: Path, make_page: Callable[..., bytes], run_script: RunScript
) -> None:
    """Where everybody may create files, and nobody remove those of others, as in /dev/shm."""
    segment_path.parent.chmod(0o1777)
    segment_path.write_bytes(make_page(body=BODY.pack()))
    segment_path.chmod(0o644)
    os.chown(segment_path, 65534, 65534)
    assert run_script("write_as_nobody", segment_path) == "4\n"


@only_root
@pytest.mark.parametrize("which", ["shm0", "shm0.lock"])
def test_what_is_checked_is_what_was_opened(segment: Path, run_script: RunScript, which: str) -> None:
    """A file that takes the place of a good one between the look and the opening is refused like any."""
    theirs = segment.with_name("theirs")
    theirs.write_bytes(segment.read_bytes())
    os.chown(theirs, STRANGER, -1)
    content = theirs.read_bytes()
    printed = run_script("swapped_file", segment.with_name(which), theirs)
    assert f"is owned by a user without a name (uid {STRANGER})" in printed
    assert segment.with_name(which).read_bytes() == content


# The lock.


@only_root
def test_strangers_lock_is_named_and_not_believed(segment: Path, start_script: Callable[..., Started]) -> None:
    """Though he holds it, no process is named that he chose: his file is not how writers here shut each other out."""
    holder = start_script("hold_lock", lock_of(segment))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lock_of(segment).chmod(0o600)
    os.chown(lock_of(segment), STRANGER, -1)
    refused(
        segment,
        rf"its lock {lock_of(segment)} is owned by .* \(uid {STRANGER}\), .*; remove it, or choose another",
    )


@only_root
def test_strangers_lock_is_named_to_who_may_not_open_it(segment: Path, run_script: RunScript) -> None:
    """An ordinary user's writer is told who owns it, not only that permission was denied."""
    os.chown(segment, 65534, -1)
    lock_of(segment).touch(mode=0o600)
    os.chown(lock_of(segment), STRANGER, -1)
    printed = run_script("try_writer_as_nobody", segment)
    assert f"(uid {STRANGER})" in printed


@pytest.mark.parametrize("mode", [0o622, 0o606, 0o666])
def test_lock_that_others_may_write_is_refused(segment: Path, mode: int) -> None:
    """They could hold it, and write any process's number into it."""
    lock_of(segment).touch()
    lock_of(segment).chmod(mode)
    refused(
        segment, rf"its lock {lock_of(segment)} is owned by .*, and others may write it too \(mode {mode:04o}\)"
    )


def test_lock_that_others_may_read_becomes_its_owners_alone(segment: Path) -> None:
    """To hold a lock takes no more than to read its file."""
    lock_of(segment).touch()
    lock_of(segment).chmod(0o644)
    with SegmentWriter(segment):
        assert lock_of(segment).stat().st_mode & 0o777 == 0o600
        with pytest.raises(SegmentInUseError, match=f"process {os.getpid()} "):
            SegmentWriter(segment)


# The directories on the way.


@only_root
@pytest.mark.parametrize("below", ["shm0", "deeper/shm0", "deeper/new/shm0"])
@pytest.mark.parametrize("by_way_of", [False, True], ids=["in-the-path", "in-a-links-target"])
def test_strangers_symbolic_link_is_not_followed(segment_path: Path, below: str, by_way_of: bool) -> None:
    """Anywhere in the path, and where a link of our own leads by way of it: he would say where files are created."""
    target = segment_path.parent / "precious"
    (target / "deeper").mkdir(parents=True)
    link = segment_path.parent / "link"
    link.symlink_to("precious")
    os.lchown(link, STRANGER, STRANGER)
    path = link / below
    if by_way_of:
        ours = segment_path.parent / "ours"
        ours.symlink_to(link / "deeper" / ".." / ".")
        path = ours / below
    before = state(segment_path.parent)
    match = rf"its directory {link} is a symbolic link of a user without a name \(uid {STRANGER}\)"
    with pytest.raises(SegmentError, match=match):
        SegmentWriter(path)
    assert state(segment_path.parent) == before


@pytest.mark.parametrize("target", ["real/../real", "{}/real", "./real/", "other-link"])
def test_symbolic_link_of_ones_own_is_followed(segment_path: Path, target: str) -> None:
    """Such as /var/run, which leads to /run: relative, absolute, with dots, or to another link."""
    here = segment_path.parent
    (here / "real").mkdir()
    (here / "other-link").symlink_to("real")
    (here / "link").symlink_to(target.format(here))
    with SegmentWriter(here / "link" / "new" / "shm0") as writer:
        assert writer.write(BODY) == 2
        assert (here / "real" / "new" / "shm0.lock").exists()
    assert [path.name for path in (here / "real" / "new").iterdir()] == ["shm0"]
    with SegmentReader(here / "link" / "new" / "shm0") as reader:
        assert reader.snapshot().body == BODY


@only_root
def test_roots_symbolic_link_is_followed_by_others(segment_path: Path, run_script: RunScript) -> None:
    """Nobody's writer follows a link of root's."""
    (segment_path.parent / "real").mkdir()
    (segment_path.parent / "real").chmod(0o1777)
    (segment_path.parent / "link").symlink_to("real")
    assert run_script("write_as_nobody", segment_path.parent / "link" / "shm0") == "2\n"


def test_links_that_lead_in_a_circle_are_an_error(segment_path: Path) -> None:
    """A SegmentError, after as many as the kernel follows."""
    link = segment_path.parent / "link"
    link.symlink_to("link")
    with pytest.raises(SegmentError, match="too many symbolic links"):
        SegmentWriter(link / "shm0")


# A user namespace.


@only_root
def test_owner_outside_the_user_namespace_is_a_stranger(segment: Path) -> None:
    """A container's root sees the files of the host's root, and of everybody else there, as those of one user."""
    os.chown(segment, STRANGER, -1)
    command = ["unshare", "--user", "--map-root-user", sys.executable, path_of("try_writer"), str(segment)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if "unshare:" in result.stderr:
        pytest.skip(f"no user namespaces here: {result.stderr}")
    assert (result.returncode, result.stderr) == (0, "")
    assert "is owned by a user outside this user namespace (uid 65534)" in result.stdout
