"""The protocol of one VMClock page in plain Python: what the compiled core must do, without its ordering.

An oracle for tests. It states each operation as the words of the page before and after; it cannot order loads and
stores between processes, which is why the package has no such fallback.
"""

import struct
from collections.abc import Callable
from typing import Protocol

_CONTROL_OFFSET = 8
_MARKER_OFFSET = 0x10
_BODY_OFFSET = 16
_ABI_SIZE = 112
_WORD = 8
_MAGIC = 0x4B4C4356
_BODY_SIZES = (88, 96)


class SeqlockPage(Protocol):
    """What the twin and ``vmclock_async._core.Page`` have in common."""

    @property
    def closed(self) -> bool: ...
    @property
    def control_word(self) -> int: ...
    @property
    def disruption_marker(self) -> int: ...
    def close(self) -> None: ...
    def read(self) -> bytes | None: ...
    def commit(self, body: bytes, counter_id: int | None, time_type: int | None, /) -> int: ...
    def reset(self, size: int, /) -> int: ...


class TwinPage:
    """A page in *buffer*, a mapping or a bytearray of at least 112 bytes. *on_store* hears of every store."""

    def __init__(self, buffer: bytearray, *, on_store: Callable[[int], None] | None = None) -> None:
        self._buffer = buffer
        self._on_store = on_store
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def control_word(self) -> int:
        return self._load(_CONTROL_OFFSET)

    @property
    def disruption_marker(self) -> int:
        return self._load(_MARKER_OFFSET)

    def close(self) -> None:
        self._closed = True

    def read(self) -> bytes | None:
        first = self.control_word
        if first >> 32 & 1:
            return None
        copy = bytes(self._buffer[:_ABI_SIZE])
        return copy if self.control_word == first else None

    def commit(self, body: bytes, counter_id: int | None, time_type: int | None, /) -> int:
        if len(body) not in _BODY_SIZES:
            raise ValueError(f"a body is 88 or 96 bytes, not {len(body)}")
        for constant in (counter_id, time_type):
            if constant is not None and not 0 <= constant <= 255:
                raise ValueError(f"a constant is from 0 to 255, not {constant}")
        control = self.control_word | 1 << 32
        self._store(_CONTROL_OFFSET, control)
        for index, word in enumerate(struct.unpack(f"<{len(body) // _WORD}Q", body)):
            self._store(_BODY_OFFSET + index * _WORD, word)
        old_counter_id, old_time_type = control >> 16 & 0xFF, control >> 24 & 0xFF
        return self._finish(
            control >> 32,
            version=1,
            counter_id=old_counter_id if counter_id is None else counter_id,
            time_type=old_time_type if time_type is None else time_type,
        )

    def reset(self, size: int, /) -> int:
        if not 104 <= size <= 4096:
            raise ValueError(f"a segment's size is from 104 to 4096 bytes, not {size}")
        odd = self.control_word >> 32 | 1
        self._store(_CONTROL_OFFSET, odd << 32)
        self._store(0, size << 32 | _MAGIC)
        for offset in range(_BODY_OFFSET, min(size - size % _WORD, _ABI_SIZE), _WORD):
            self._store(offset, 0)
        return self._finish(odd, version=0, counter_id=0, time_type=0)

    def _finish(self, odd: int, *, version: int, counter_id: int, time_type: int) -> int:
        even = (odd + 1) % 2**32
        self._store(_CONTROL_OFFSET, even << 32 | time_type << 24 | counter_id << 16 | version)
        return even

    def _load(self, offset: int) -> int:
        if self._closed:
            raise ValueError("the page is closed")
        (word,) = struct.unpack_from("<Q", self._buffer, offset)
        return int(word)

    def _store(self, offset: int, word: int) -> None:
        struct.pack_into("<Q", self._buffer, offset, word)
        if self._on_store:
            self._on_store(offset)
