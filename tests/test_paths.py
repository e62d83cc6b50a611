"""Where publishers put a segment and readers look for it, when no path is given."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.commands import failure, run_command
from vmclock_async import Clock, SegmentNotInitializedError, SegmentWriter, VMClockBody
from vmclock_async._paths import SEGMENT_VARIABLE, SYSTEM_PATH, default_path, user_path

IN_SHARED_MEMORY = Path(f"/dev/shm/vmclock-async-{os.geteuid()}/shm0")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime directory, in an environment that names no segment."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    monkeypatch.delenv(SEGMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


def first_of(*places: Path) -> Path:
    """Where readers look first of those *places* that have a segment: the machine's goes before the user's."""
    return next(place for place in (SYSTEM_PATH, *places) if place.exists())


def test_publisher_uses_the_runtime_directory(runtime: Path) -> None:
    """Its own, whatever libraries are installed; readers find it there."""
    assert user_path() == runtime / "vmclock-async" / "shm0"
    with SegmentWriter(user_path()) as writer:
        writer.write(VMClockBody())
    assert default_path() == first_of(user_path())


def test_no_library_has_a_say(runtime: Path, tmp_path: Path) -> None:
    """Whatever other version of platformdirs is installed, or none: the place is the same."""
    (tmp_path / "platformdirs.py").write_text("raise ImportError('not to be asked')")
    script = "from vmclock_async._paths import user_path; print(user_path())"
    told = subprocess.check_output(
        [sys.executable, "-c", script], text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert told.strip() == str(user_path())


@pytest.mark.parametrize("kind", ["missing", "a file", "relative", "writable by others", "empty", "unset"])
def test_runtime_directory_that_is_none_is_passed_over(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Then it is the one of the session manager, or else a directory in shared memory, which is always there."""
    values = {"missing": str(runtime / "none"), "a file": str(runtime / "file"), "relative": "run", "empty": ""}
    (runtime / "file").touch()
    if kind == "unset":
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    elif kind == "writable by others":
        runtime.chmod(0o777)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", values[kind])
    assert user_path() in (Path(f"/run/user/{os.geteuid()}/vmclock-async/shm0"), IN_SHARED_MEMORY)


def test_variable_goes_before_every_place(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What $VMCLOCK_ASYNC_SEGMENT names is the segment, there or not."""
    monkeypatch.setenv(SEGMENT_VARIABLE, str(runtime / "named"))
    assert default_path() == runtime / "named"


def test_every_place_that_was_looked_at_is_named(runtime: Path) -> None:
    """Where there is no segment at all the error names each place, for a program and on the command line."""
    if SYSTEM_PATH.exists() or IN_SHARED_MEMORY.exists():
        assert default_path() == first_of(IN_SHARED_MEMORY)  # this machine has one
        return
    places = (SYSTEM_PATH, runtime / "vmclock-async" / "shm0", IN_SHARED_MEMORY)
    with pytest.raises(SegmentNotInitializedError) as caught:
        Clock()
    assert all(str(place) in str(caught.value) for place in places)
    said = failure(run_command(runtime, "now", "--json"))
    assert all(str(place) in said["path"] + said["reason"] for place in places)
    (line,) = run_command(runtime, "show").stderr.splitlines()
    assert all(str(place) in line for place in places)
    nowhere = run_command(Path("/nowhere"), "now").stderr
    assert "XDG_RUNTIME_DIR is /nowhere" in nowhere


def test_place_of_another_user_is_told(run_script: Callable[..., str], runtime: Path, tmp_path: Path) -> None:
    """A runtime directory that ``su`` left behind, of another user: a typed error, or another place."""
    others = tmp_path / "others"
    others.mkdir(mode=0)
    said = run_script("anothers_runtime_directory", others / "runtime", "/proc/1/cwd/x")
    assert set(said.split()) <= {"SegmentNotInitializedError", "there"}


@pytest.fixture
def taken() -> Iterator[int]:
    """A user who finds that another has made the directory in shared memory; only root can arrange it."""
    user = 3_000_000 + os.getpid()
    directory = Path(f"/dev/shm/vmclock-async-{user}")
    directory.mkdir()
    os.chown(directory, user + 1, user + 1)
    yield user
    directory.rmdir()


@pytest.mark.parametrize("asked", ["Clock", "SegmentWriter"])
def test_stranger_cannot_offer_a_segment(
    request: pytest.FixtureRequest, run_script: Callable[..., str], asked: str
) -> None:
    """Anybody may make a directory in shared memory: another user's is refused by readers and publishers, by name."""
    if os.geteuid() != 0:
        return  # nobody else can make what another user owns
    user = request.getfixturevalue("taken")
    said = run_script("strangers_directory", user, asked)
    if not SYSTEM_PATH.exists():
        assert f"belongs to user {user + 1}, not to {user}" in said
