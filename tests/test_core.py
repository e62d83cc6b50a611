"""The compiled core against its manual (``_core.pyi``), and against the same protocol in plain Python.

What one process can see is here. That the stores are ordered is seen in ``test_seqlock_aarch64.py``, what other
processes see in ``test_seqlock_stress.py``.
"""

import ast
import gc
import json
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, strategies as st

import vmclock_async
from kit.twin import SeqlockPage, TwinPage
from vmclock_async import _core

BODY_88 = bytes(range(1, 89))
BODY_96 = bytes(range(101, 197))
ABI_SIZE = 112
PAGE_SIZE = 4096


class Subject(NamedTuple):
    """A page under test and a way to see all of its bytes."""

    page: SeqlockPage
    contents: Callable[[], bytes]


MakeSubject = Callable[[bytes], Subject]
MakePage = Callable[..., bytes]
RunScript = Callable[..., str]


def anonymous_file(content: bytes) -> int:
    """A descriptor of a nameless file in memory that holds *content* and is a page long."""
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.pwrite(fd, content.ljust(PAGE_SIZE, b"\0"), 0)
    return fd


def compiled_subject(content: bytes) -> Subject:
    """The compiled page over *content*."""
    page = _core.Page(anonymous_file(content), writable=True)
    return Subject(page, lambda: os.pread(page.fileno(), PAGE_SIZE, 0))


def twin_subject(content: bytes) -> Subject:
    """The page in plain Python over *content*."""
    buffer = bytearray(content.ljust(PAGE_SIZE, b"\0"))
    return Subject(TwinPage(buffer), lambda: bytes(buffer))


@pytest.fixture(params=[pytest.param(compiled_subject, id="core"), pytest.param(twin_subject, id="twin")])
def make_subject(request: pytest.FixtureRequest) -> Iterator[MakeSubject]:
    """Makes a page of the compiled core or its twin; closed when the test ends."""
    made: list[Subject] = []

    def make(content: bytes) -> Subject:
        made.append(request.param(content))
        return made[-1]

    yield make
    for subject in made:
        subject.page.close()


# The protocol, on both.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(0, 2, id="from-0"),
        pytest.param(4, 6, id="even"),
        pytest.param(5, 6, id="odd-left-by-a-dead-writer"),
        pytest.param(0xFFFFFFFE, 0, id="wraps"),
        pytest.param(0xFFFFFFFF, 0, id="wraps-from-odd"),
        pytest.param(0x7FFFFFFE, 0x80000000, id="passes-2^31"),
    ],
)
@pytest.mark.parametrize("operation", ["commit", "reset"])
def test_seq_count_goes_on_to_the_next_even_number(
    make_subject: MakeSubject, make_page: MakePage, operation: str, before: int, after: int
) -> None:
    """A commit or a reset returns the next even number modulo 2**32 and leaves it in the page."""
    subject = make_subject(make_page(seq_count=before))
    result = subject.page.commit(BODY_88, None, None) if operation == "commit" else subject.page.reset(104)
    assert result == after
    assert struct.unpack_from("<I", subject.contents(), 12) == (after,)
    assert subject.page.control_word >> 32 == after


@pytest.mark.parametrize("body", [pytest.param(BODY_88, id="88"), pytest.param(BODY_96, id="96")])
def test_commit_writes_the_body_and_nothing_behind_it(
    make_subject: MakeSubject, make_page: MakePage, body: bytes
) -> None:
    """The body lies at 0x10 to the byte; magic, size and what follows the body stay as they are."""
    before = make_page(size=112, seq_count=4).ljust(PAGE_SIZE, b"\xaa")
    subject = make_subject(before)
    subject.page.commit(body, None, None)
    after = subject.contents()
    assert after[:8] == before[:8]
    assert after[16 : 16 + len(body)] == body
    assert after[16 + len(body) :] == before[16 + len(body) :]


@pytest.mark.parametrize(
    ("given_constants", "kept"),
    [
        pytest.param((None, None), (7, 9), id="both-kept"),
        pytest.param((1, None), (1, 9), id="counter_id-changed"),
        pytest.param((None, 1), (7, 1), id="time_type-changed"),
        pytest.param((255, 255), (255, 255), id="largest"),
        pytest.param((0, 0), (0, 0), id="zero-is-a-value"),
    ],
)
def test_commit_changes_constants_only_when_told(
    make_subject: MakeSubject,
    make_page: MakePage,
    given_constants: tuple[int | None, int | None],
    kept: tuple[int, int],
) -> None:
    """None keeps counter_id or time_type as the page has it; a number, zero too, replaces it."""
    subject = make_subject(make_page(seq_count=8, counter_id=7, time_type=9))
    subject.page.commit(BODY_88, *given_constants)
    assert struct.unpack_from("<HBBI", subject.contents(), 8) == (1, *kept, 10)


@pytest.mark.parametrize("version", [0, 1, 9])
def test_commit_sets_version_1(make_subject: MakeSubject, make_page: MakePage, version: int) -> None:
    """The version becomes 1 with the commit, whatever it was."""
    subject = make_subject(make_page(version=version))
    subject.page.commit(BODY_88, None, None)
    assert subject.page.control_word & 0xFFFF == 1


@pytest.mark.parametrize("size", [104, 112, 4096])
def test_reset_leaves_a_page_that_is_not_usable_yet(
    make_subject: MakeSubject, make_page: MakePage, size: int
) -> None:
    """Version 0, zero constants and body, magic and size in place; bytes outside the region are not touched."""
    before = make_page(seq_count=40, magic=0xBAD, version=3, counter_id=7, time_type=9).ljust(PAGE_SIZE, b"\xaa")
    subject = make_subject(before)
    assert subject.page.reset(size) == 42
    after = subject.contents()
    end = min(size, ABI_SIZE)
    assert struct.unpack_from("<IIHBBI", after) == (0x4B4C4356, size, 0, 0, 0, 42)
    assert after[16:end] == bytes(end - 16)
    assert after[end:] == before[end:]


def test_read_gives_the_whole_page_that_the_abi_defines(make_subject: MakeSubject, make_page: MakePage) -> None:
    """At rest a read is the first 112 bytes, whatever version and size the header claims."""
    content = make_page(seq_count=6, version=0, size=0, body=BODY_96)
    assert make_subject(content).page.read() == content


def test_read_gives_nothing_while_odd(make_subject: MakeSubject, make_page: MakePage) -> None:
    """An odd seq_count is a commit in progress: None, until a commit has ended it."""
    page = make_subject(make_page(seq_count=7)).page
    assert page.read() is None
    page.commit(BODY_88, None, None)
    assert page.read() is not None


def test_closed_page_refuses_to_be_read(make_subject: MakeSubject, make_page: MakePage) -> None:
    """After close(), which may be called again, a read raises ValueError."""
    page = make_subject(make_page()).page
    page.close()
    page.close()
    assert page.closed
    with pytest.raises(ValueError, match="closed"):
        page.read()


Operation = tuple[Literal["commit"], bytes, int | None, int | None] | tuple[Literal["reset"], int]
CONSTANTS = st.none() | st.integers(0, 255)
BODIES = st.binary(min_size=88, max_size=88) | st.binary(min_size=96, max_size=96)
COMMIT: st.SearchStrategy[Literal["commit"]] = st.just("commit")
RESET: st.SearchStrategy[Literal["reset"]] = st.just("reset")
OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(COMMIT, BODIES, CONSTANTS, CONSTANTS) | st.tuples(RESET, st.integers(104, PAGE_SIZE)),
    max_size=8,
)


def perform(page: SeqlockPage, operation: Operation) -> int:
    """Do *operation* to *page*; return the seq_count it reports."""
    if operation[0] == "commit":
        return page.commit(*operation[1:])
    return page.reset(operation[1])


@given(page=st.binary(min_size=ABI_SIZE, max_size=ABI_SIZE), operations=OPERATIONS)
def test_core_and_twin_agree_byte_for_byte(page: bytes, operations: list[Operation]) -> None:
    """From any page, through any operations, both return the same numbers and leave the same 4096 bytes."""
    compiled, twin = compiled_subject(page), twin_subject(page)
    try:
        for operation in operations:
            assert perform(compiled.page, operation) == perform(twin.page, operation)
            assert compiled.contents() == twin.contents()
            assert compiled.page.control_word == twin.page.control_word
            assert compiled.page.disruption_marker == twin.page.disruption_marker
            assert compiled.page.read() == twin.page.read()
    finally:
        compiled.page.close()


@pytest.mark.parametrize("operation", [("commit", BODY_96, 1, 1), ("reset", 112)], ids=["commit", "reset"])
def test_no_step_of_an_operation_can_be_read(make_page: MakePage, operation: Operation) -> None:
    """The protocol itself: between its first store and its last a reader gets nothing."""
    seen: list[bytes | None] = []
    buffer = bytearray(make_page(seq_count=4, size=112, body=bytes(96)))
    twin = TwinPage(buffer, on_store=lambda _: seen.append(twin.read()))
    perform(twin, operation)
    assert len(seen) > 12
    assert [copy for copy in seen if copy is not None] == [bytes(buffer)]
    assert seen[-1] == bytes(buffer)


# The compiled core alone.


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


class pinned_to_one_processor:
    """Keeps this thread on one processor for the length of the block."""

    def __enter__(self) -> None:
        self._allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._allowed)})

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._allowed)


def test_counter_never_goes_back_and_advances() -> None:
    """On one processor each reading is at least the one before, and time passes between them."""
    with pinned_to_one_processor():
        readings = [_core.counter() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert 0 <= readings[0] < readings[-1] < 2**64


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


class Derived(_core.Clock):
    """A clock in the core, and what it asks when it has no answer itself."""

    def _now_slowly(self, max_error_ns: int | None) -> object:
        return max_error_ns

    def _at_slowly(self, stamp: object, max_error_ns: int | None) -> object:
        return stamp, max_error_ns

    _at_monotonic_slowly = _at_slowly


def is_special(name: str) -> bool:
    """Whether Python itself gives *name* its meaning."""
    return name.startswith("__")


def test_manual_lists_what_there_is() -> None:
    """_core.pyi names exactly the module's members and those of its types, with a docstring for each function."""
    (package,) = vmclock_async.__path__
    manual = ast.parse((Path(package) / "_core.pyi").read_text())
    documented: dict[str, set[str]] = {"": set()}
    for node in manual.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                documented[""].add(name)
            case ast.FunctionDef(name=name):
                documented[""].add(name)
                assert ast.get_docstring(node), name
            case ast.ClassDef(name=name):
                documented[""].add(name)
                members = [member for member in node.body if isinstance(member, ast.FunctionDef)]
                documented[name] = {member.name for member in members if not is_special(member.name)}
                undocumented = [member.name for member in members if not ast.get_docstring(member)]
                assert all(entry.startswith("_") for entry in undocumented), name
    assert documented[""] == {name for name in vars(_core) if not is_special(name)}
    # A derived class gets now() as its own, for speed.
    types = {"Page": _core.Page, "TimeInterval": _core.TimeInterval, "Clock": Derived}
    for name, kind in types.items():
        present = {member for base in kind.__mro__[:-1] for member in vars(base) if not is_special(member)}
        assert documented[name] == present - {"_now_slowly", "_at_slowly", "_at_monotonic_slowly"}, name
        assert kind.__doc__
    assert documented.keys() == {"", *types}
    assert _core.__doc__


def test_counter_is_the_one_of_this_machine() -> None:
    """COUNTER_ID follows the processor: the ABI's 1 on x86, 0 on Arm."""
    assert {"x86_64": 1, "aarch64": 0}[os.uname().machine] == _core.COUNTER_ID
    assert _core.READ_LIMIT_NS == 50_000


def test_core_built_by_a_later_python_runs_on_an_earlier_one() -> None:
    """No format with '#' is in the source: the stable ABI does not cover what it expects of the caller's headers.

    Built with the headers of 3.13 or later, such a call raises SystemError on 3.11 and 3.12.
    """
    source = "".join(path.read_text() for path in sorted((Path(__file__).parent.parent / "csrc").glob("*.c")))
    calls = re.findall(r"\b(?:Py_BuildValue|PyArg_Parse\w*)\([^;]*;", source)
    formats = [text for call in calls for text in re.findall(r'"([^"]*)"', call)]
    assert formats
    assert [text for text in formats if "#" in text] == []


@pytest.mark.parametrize(
    "function",
    [
        "Clock",
        "Clock-subclass",
        "Page",
        "Page-refused",
        "TimeInterval",
        "TimeInterval-refused",
        "TimeInterval-refused-type",
        "as_dict",
        "as_dict-refused",
        "at",
        "at-refused",
        "at-slowly",
        "at_monotonic",
        "at_monotonic-slowly",
        "attach",
        "attach-refused",
        "attach-refused-number",
        "before",
        "before-datetime",
        "before-refused",
        "checked_counter",
        "close",
        "close_private",
        "closed",
        "commit",
        "commit-refused",
        "compare",
        "contains",
        "contains-refused",
        "control_word",
        "counter",
        "datetimes",
        "equality",
        "fileno",
        "json_schema",
        "leave",
        "limit",
        "limit-refused",
        "now",
        "now-beyond",
        "now-kept",
        "now-no-number",
        "now-refused",
        "now-slowly",
        "numbers",
        "open_private",
        "open_private-refused",
        "order-refused",
        "read",
        "read-refused",
        "read_with_counter",
        "reckon",
        "reckon-refused",
        "reduce",
        "repr",
        "reset",
        "reset-refused",
        "schema",
        "set_counter_error",
        "set_interval_functions",
        "set_interval_functions-refused",
        "tsc_is_invariant",
        "unchanged",
        "unchanged-refused",
    ],
)
def test_calls_leak_nothing(run_script: RunScript, function: str) -> None:
    """Many calls, successful or refused, leave the process as large as it was (200,000 times 16 bytes are 3 MB)."""
    assert int(run_script("leak", function, _core.__file__)) < 512 * 1024


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
