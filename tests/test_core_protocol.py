"""The compiled page against the same protocol in plain Python, byte for byte.

That the stores are ordered is seen in ``test_seqlock_aarch64.py``, what other processes see in
``test_seqlock_stress.py``.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, strategies as st

from kit.pages import BODY_88, BODY_96, PAGE_SIZE, anonymous_file
from kit.twin import SeqlockPage, TwinPage
from vmclock_async import _core

ABI_SIZE = 112


class Subject(NamedTuple):
    """A page under test and a way to see all of its bytes."""

    page: SeqlockPage
    contents: Callable[[], bytes]


MakeSubject = Callable[[bytes], Subject]
MakePage = Callable[..., bytes]


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
