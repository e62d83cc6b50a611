"""A twin of ClockBound's writer and of its client, by the layouts alone: it uses nothing of the product.

The client computes as ClockBound's own does, in floats and with its cut to whole nanoseconds.
"""

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

NS: Final = 10**9
COARSE: Final = 6
"""CLOCK_MONOTONIC_COARSE."""
MAGIC: Final = bytes.fromhex("4e5a4d4100024243")
UNKNOWN, SYNCHRONIZED, FREERUNNING, DISRUPTED = range(4)
FIELDS: Final = {
    2: {
        "size": (8, "<I"),
        "version": (12, "<H"),
        "generation": (14, "<H"),
        "as_of_s": (16, "<q"),
        "as_of_ns": (24, "<q"),
        "void_after_s": (32, "<q"),
        "void_after_ns": (40, "<q"),
        "bound": (48, "<q"),
        "marker": (56, "<Q"),
        "drift": (64, "<I"),
        "status": (68, "<i"),
        "enabled": (72, "<B"),
    },
    3: {
        "size": (8, "<I"),
        "min_version": (12, "<B"),
        "max_version": (13, "<B"),
        "generation": (14, "<H"),
        "as_of_tsc": (16, "<Q"),
        "as_of_s": (24, "<q"),
        "as_of_ns": (32, "<q"),
        "void_after_s": (40, "<q"),
        "void_after_ns": (48, "<q"),
        "period": (56, "<d"),
        "period_err": (64, "<d"),
        "bound": (72, "<q"),
        "marker": (80, "<Q"),
        "drift": (88, "<I"),
        "status": (92, "<i"),
        "enabled": (96, "<B"),
    },
}
SIZES: Final = {2: 80, 3: 104}
VERSIONS: Final[dict[int, dict[str, int]]] = {2: {"version": 2}, 3: {"min_version": 3, "max_version": 3}}


def coarse_ns() -> int:
    return time.clock_gettime_ns(COARSE)


def segment(layout: int = 2, **fields: Any) -> bytes:
    """A segment of now, synchronized to 10 us, with other *fields*; times may be given as as_of and void_after."""
    as_of = fields.pop("as_of", coarse_ns())
    void_after = fields.pop("void_after", as_of + 1000 * NS)
    values: dict[str, Any] = {
        "size": SIZES[layout],
        **VERSIONS[layout],
        "generation": 2,
        "as_of_s": as_of // NS,
        "as_of_ns": as_of % NS,
        "void_after_s": void_after // NS,
        "void_after_ns": void_after % NS,
        "bound": 10_000,
        "drift": 1000,
        "status": SYNCHRONIZED,
        **fields,
    }
    page = bytearray(SIZES[layout])
    page[:8] = MAGIC
    for name, value in values.items():
        offset, form = FIELDS[layout][name]
        struct.pack_into(form, page, offset, value)
    return bytes(page)


def fields(page: bytes, layout: int = 2) -> dict[str, Any]:
    """What is in *page*."""
    assert len(page) == SIZES[layout]
    assert page[:8] == MAGIC
    return {name: struct.unpack_from(form, page, offset)[0] for name, (offset, form) in FIELDS[layout].items()}


def put(path: Path, page: bytes) -> Path:
    """Write *page* over what is at *path*, in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, page, 0)
    os.close(fd)
    return path


class Answer(NamedTuple):
    """What a client gives its program."""

    earliest: int
    latest: int
    status: int


class Client:
    """ClockBound's client: it keeps the file that it opened, and its last copy."""

    def __init__(self, path: Path, *, layout: int = 2, device: Path | None = None) -> None:
        self._layout = layout
        self._device = device
        with path.open("rb") as file:
            page = file.read()
            values = fields(page[: SIZES[layout]], layout)
            if values.get("version") == 0 or values["generation"] == 0:
                raise ValueError("not initialized")
            assert values["size"] <= os.fstat(file.fileno()).st_size
            self._mapped = mmap.mmap(file.fileno(), SIZES[layout], prot=mmap.PROT_READ)
        self._copy: dict[str, Any] = dict.fromkeys(FIELDS[layout], 0)
        self.read()

    def close(self) -> None:
        self._mapped.close()

    def read(self) -> dict[str, Any]:
        """The present copy; the last one while a commit is in progress, or the segment begins afresh."""
        for _ in range(1000):
            page = self._mapped[:]
            values = fields(page, self._layout)
            if values.get("version") == 0 or values["generation"] in (0, self._copy["generation"]):
                break
            if values["generation"] % 2:
                break
            if struct.unpack_from("<H", self._mapped, 14)[0] == values["generation"]:
                self._copy = values
                break
        return self._copy

    def now(self, realtime_ns: int | None = None, monotonic_ns: int | None = None) -> Answer:
        """As the client computes it; the clocks may be given."""
        copy = self.read()
        real = time.clock_gettime_ns(time.CLOCK_REALTIME) if realtime_ns is None else realtime_ns
        mono = coarse_ns() if monotonic_ns is None else monotonic_ns
        return answer(copy, real, mono, None if self._device is None else self._device_marker())

    def _device_marker(self) -> int:
        assert self._device is not None
        marker: int = struct.unpack_from("<Q", self._device.read_bytes(), 0x10)[0]
        return marker


def answer(copy: dict[str, Any], real: int, mono: int, device_marker: int | None = None) -> Answer:
    """What a client with *copy* answers by its clocks."""
    if copy["drift"] >= NS:
        raise ValueError("malformed")
    as_of, void_after = (copy[f"{name}_s"] * NS + copy[f"{name}_ns"] for name in ("as_of", "void_after"))
    if mono < as_of - 1000:
        raise ValueError("causality breach")
    grown = int(max(0, mono - as_of) / 1e9 * float(copy["drift"]))
    status = copy["status"]
    if status in (SYNCHRONIZED, FREERUNNING):
        if mono >= void_after:
            status = UNKNOWN if mono >= as_of + 5 * NS else status
        elif mono >= as_of + 5 * NS:
            status = FREERUNNING
    if copy["enabled"] and device_marker is not None and device_marker != copy["marker"]:
        status = UNKNOWN
    bound = copy["bound"] + grown
    return Answer(real - bound, real + bound, status)
