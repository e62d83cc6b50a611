"""The compiled page: what it refuses, and what becomes of its mapping and its descriptors."""

import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.pages import BODY_88, BODY_96, anonymous_file
from kit.processors import pinned_to_one_processor
from vmclock_async import _core

MakePage = Callable[..., bytes]
RunScript = Callable[..., str]


@pytest.fixture
def page(make_page: MakePage) -> Iterator[_core.Page]:
    """A writable page at seq_count 2."""
    with_body = _core.Page(anonymous_file(make_page(size=112, body=BODY_96)), writable=True)
    yield with_body
    with_body.close()


def test_read_gives_up_in_time(make_page: MakePage) -> None:
    """A read of a page that stays odd tries for READ_LIMIT_NS, and no longer."""
    page = _core.Page(anonymous_file(make_page(seq_count=7)))
    taken_ns = []
    try:
        for _ in range(50):
            start = time.perf_counter_ns()
            assert page.read() is None
            assert page.read_with_counter() is None
            taken_ns.append((time.perf_counter_ns() - start) // 2)
    finally:
        page.close()
    # The least of many: what is longer than that, other processes took.
    assert _core.READ_LIMIT_NS * 0.9 <= min(taken_ns) < _core.READ_LIMIT_NS * 2


def test_read_with_counter_is_a_read_and_the_counter(page: _core.Page) -> None:
    """The same copy as read(), and a counter value between one taken before and one taken after."""
    with pinned_to_one_processor():
        before = _core.counter()
        result = page.read_with_counter()
        after = _core.counter()
    assert result is not None
    copy, ticks = result
    assert copy == page.read()
    assert before <= ticks <= after


@pytest.mark.parametrize("length", [0, 87, 89, 95, 97, 104, 4096])
def test_commit_refuses_a_body_of_another_length(page: _core.Page, length: int) -> None:
    """A body is 88 or 96 bytes; another length is a ValueError that names it, and nothing is stored."""
    before = page.read()
    with pytest.raises(ValueError, match=rf"88 or 96 bytes, not {length}\b"):
        page.commit(bytes(length), None, None)
    assert page.read() == before


@pytest.mark.parametrize("value", [-1, 256, 2**31, 2**32, 2**70, -(2**70)])
@pytest.mark.parametrize("name", ["counter_id", "time_type"])
def test_commit_refuses_a_constant_out_of_range(page: _core.Page, name: str, value: int) -> None:
    """A constant outside 0 to 255, however large, is a ValueError that names it, and nothing is stored."""
    before = page.read()
    constants = (value, None) if name == "counter_id" else (None, value)
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 255"):
        page.commit(BODY_88, *constants)
    assert page.read() == before


@pytest.mark.parametrize("size", [-1, 0, 103, 4097, 2**32, 2**32 + 104, 2**70])
def test_reset_refuses_a_size_out_of_range(page: _core.Page, size: int) -> None:
    """A size outside 104 to 4096, however large, is a ValueError, and nothing is stored."""
    before = page.read()
    with pytest.raises(ValueError, match="from 104 to 4096"):
        page.reset(size)
    assert page.read() == before


def test_arguments_of_another_type_are_type_errors(page: _core.Page) -> None:
    """Wrong types and wrong numbers of arguments raise TypeError, and nothing is stored."""
    before = page.read()
    for call in (
        lambda: page.commit(bytearray(88), None, None),  # type: ignore[arg-type]
        lambda: page.commit("x" * 88, None, None),  # type: ignore[arg-type]
        lambda: page.commit(BODY_88, 1.5, None),  # type: ignore[arg-type]
        lambda: page.commit(BODY_88, None, "1"),  # type: ignore[arg-type]
        lambda: page.commit(BODY_88, None),  # type: ignore[call-arg]
        lambda: page.commit(BODY_88, None, None, None),  # type: ignore[call-arg]
        lambda: page.reset(),  # type: ignore[call-arg]
        lambda: page.reset(104.0),  # type: ignore[arg-type]
        lambda: page.reset("104"),  # type: ignore[arg-type]
        lambda: page.read(1),  # type: ignore[call-arg]
        lambda: page.read_with_counter(1),  # type: ignore[call-arg]
        lambda: page.close(1),  # type: ignore[call-arg]
        lambda: page.fileno(1),  # type: ignore[call-arg]
        lambda: _core.close_private("0"),  # type: ignore[arg-type]
        lambda: _core.counter(1),  # type: ignore[call-arg]
        lambda: _core.open_private("."),  # type: ignore[call-arg, arg-type]
        lambda: _core.Page(),  # type: ignore[call-arg]
        lambda: _core.Page("0"),  # type: ignore[arg-type]
        lambda: _core.Page(0, other=True),  # type: ignore[call-arg]
        lambda: _core.Page(0, True),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            call()
    assert page.read() == before


def test_mapping_that_fails_leaves_the_descriptors_to_the_caller(make_page: MakePage) -> None:
    """mmap's failure is an OSError that names mmap, and fd and lock_fd stay open."""
    readable, lock_fd = os.pipe()
    read_only = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
    file_fd = anonymous_file(make_page())
    sealed = os.open(f"/proc/self/fd/{file_fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for fd, writable in ((readable, False), (sealed, True), (-1, False)):
            with pytest.raises(OSError, match="mmap"):
                _core.Page(fd, writable=writable, lock_fd=lock_fd)
        for fd in (readable, lock_fd, sealed):
            os.fstat(fd)
    finally:
        for fd in (readable, lock_fd, read_only, file_fd, sealed):
            os.close(fd)


@pytest.mark.parametrize("call", [lambda page: page.commit(BODY_88, None, None), lambda page: page.reset(104)])
def test_read_only_page_refuses_to_be_written(make_page: MakePage, call: Callable[[_core.Page], int]) -> None:
    """commit() and reset() on a page that was not mapped writable raise ValueError, and store nothing."""
    page = _core.Page(anonymous_file(make_page()))
    try:
        before = page.read()
        with pytest.raises(ValueError, match="read-only"):
            call(page)
        assert page.read() == before
    finally:
        page.close()


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda page: page.control_word, id="control_word"),
        pytest.param(lambda page: page.disruption_marker, id="disruption_marker"),
        pytest.param(lambda page: page.fileno(), id="fileno"),
        pytest.param(lambda page: page.read(), id="read"),
        pytest.param(lambda page: page.read_with_counter(), id="read_with_counter"),
        pytest.param(lambda page: page.commit(BODY_88, None, None), id="commit"),
        pytest.param(lambda page: page.reset(104), id="reset"),
    ],
)
def test_closed_page_refuses_every_use(page: _core.Page, use: Callable[[_core.Page], object]) -> None:
    """Whatever touches the mapping or the descriptor raises ValueError once the page is closed."""
    assert not page.closed
    page.close()
    assert page.closed
    with pytest.raises(ValueError, match="closed"):
        use(page)


def is_open(fd: int, status: os.stat_result) -> bool:
    """Whether *fd* is still the file that *status* describes."""
    try:
        return os.path.samestat(os.fstat(fd), status)
    except OSError:
        return False


@pytest.mark.parametrize("how", ["close", "last-reference"])
@pytest.mark.parametrize("writable", [True, False])
def test_end_of_a_page_is_the_end_of_its_descriptors(make_page: MakePage, how: str, writable: bool) -> None:
    """close(), or losing the last reference, closes fd and lock_fd."""
    fd, lock_fd = anonymous_file(make_page()), anonymous_file(b"")
    statuses = {number: os.fstat(number) for number in (fd, lock_fd)}
    page = _core.Page(fd, writable=writable, lock_fd=lock_fd)
    assert page.fileno() == fd
    assert all(is_open(number, status) for number, status in statuses.items())
    if how == "close":
        page.close()
    del page
    gc.collect()
    assert not any(is_open(number, status) for number, status in statuses.items())


@pytest.mark.parametrize("how", ["os.fork", "fork-from-C"])
def test_fork_closes_writable_pages_in_the_child(
    run_script: RunScript, segment_path: Path, make_page: MakePage, how: str
) -> None:
    """The child has no writable page and none of their descriptors, only its readers; the lock is the parent's."""
    segment_path.write_bytes(make_page(seq_count=2))
    report = json.loads(run_script("fork_core", segment_path, how))
    assert report == {
        "child": {
            "closed": [True, True],
            "descriptors": [str(segment_path)],
            "mapped_writable": False,
            "refused": [True, True],
            "reader": True,
        },
        "held_after_child": True,
        "parent_writes": 4,
        "free_beside_child": True,
    }


def test_close_waits_for_the_calls_of_other_threads(run_script: RunScript) -> None:
    """Closing under threads that read and commit gives them ValueError, never a signal.

    Under the GIL that cannot go wrong; on free-threaded builds it can.
    """
    assert run_script("close_race") == "survived\n"
