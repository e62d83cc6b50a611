"""Snapshots: one whole copy of a page."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from kit.bodies import BODIES, CLOCKBOUND_BODY, GENERATION
from vmclock_async import CounterId, Snapshot, VMClockBody, abi


def snapshot_of(body: VMClockBody, **header: int) -> Snapshot:
    """A snapshot of a page with *body*."""
    packed = body.pack()
    fields = {"magic": abi.MAGIC, "size": 16 + len(packed), "version": 1, "counter_id": 0, "time_type": 0}
    return Snapshot.unpack(abi.pack_header(abi.Header(**{**fields, "seq_count": 2, **header})) + packed, inode=5)


def test_snapshot_has_the_header_and_the_body() -> None:
    """Header fields by their names, known constants as members, unknown ones as plain ints, the inode as given."""
    snapshot = snapshot_of(CLOCKBOUND_BODY, counter_id=1, time_type=200, seq_count=2**32 - 2)
    assert (snapshot.magic, snapshot.size, snapshot.version) == (abi.MAGIC, 104, 1)
    assert snapshot.counter_id is CounterId.X86_TSC
    assert type(snapshot.time_type) is int
    assert (snapshot.time_type, snapshot.seq_count, snapshot.inode) == (200, 2**32 - 2, 5)
    assert snapshot.body == CLOCKBOUND_BODY


@pytest.mark.parametrize(("size", "found"), [(104, None), (111, None), (112, 9), (4096, 9)])
def test_generation_counter_needs_room_in_the_region(size: int, found: int | None) -> None:
    """Bytes past the region's size are not the page's, even where they are mapped and the flag is set."""
    snapshot = snapshot_of(VMClockBody(vm_generation_counter=9), size=size)
    assert snapshot.body.vm_generation_counter == found
    assert snapshot.body.flags == GENERATION


@given(body=BODIES, seq_count=st.integers(0, 2**32 - 1), constant=st.integers(0, 255))
def test_snapshots_survive_json_and_pickle(body: VMClockBody, seq_count: int, constant: int) -> None:
    """A snapshot is the same after a trip through JSON or pickle."""
    snapshot = snapshot_of(body, seq_count=seq_count, counter_id=constant, time_type=constant)
    assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_snapshots_are_frozen() -> None:
    """A snapshot cannot be changed."""
    with pytest.raises(ValidationError, match="frozen"):
        snapshot_of(VMClockBody()).seq_count = 4  # type: ignore[misc]


@pytest.mark.parametrize("folder", ["clockbound-writer", "linux-device"])
def test_captured_pages_are_snapshots(vectors: Path, folder: str) -> None:
    """Every page that others wrote unpacks, and its body packs to the bytes that were there."""
    paths = sorted((vectors / folder).glob("*.bin"))
    assert paths
    for path in paths:
        page = path.read_bytes()
        snapshot = Snapshot.unpack(page, inode=1)
        assert snapshot.size == len(page)
        assert snapshot.body.pack() == page[16:104]
