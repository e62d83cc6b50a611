"""The files that a recorder writes, one after the other; each is a recording by itself.

The one that is being written has the name that was asked for. When another begins, the former ones are renamed, as
logrotate does it: FILE becomes FILE.1, FILE.1 becomes FILE.2, and so on up to the oldest that is kept.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple, final

from vmclock_async.errors import RecordingError
from vmclock_async.models import Snapshot
from vmclock_async.recording import Record, RecordingHeader, RecordingReader, RecordingWriter

__all__ = ("Seen", "Series")

_log: Final = logging.getLogger("vmclock_async.record")


class Seen(NamedTuple):
    """A commit, and when it was seen."""

    snapshot: Snapshot
    monotonic_ns: int
    counter: int | None

    @property
    def constants(self) -> tuple[int, int, int]:
        """Values that the header of a recording holds, so that they are the same in all of its records."""
        return self.snapshot.counter_id, self.snapshot.time_type, self.snapshot.size


@final
class Series:
    """Files of recordings, which begins when the first commit is written.

    Args:
        path: path of the file that is being written.
        max_size: bytes; a file that has so many is full. The record that fills it is whole.
        keep: how many former files are kept when one is full; None: nothing is written after it.

    Raises:
        RecordingError: *path* may not be written, or what is there would be lost.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_size: int | None = None, keep: int | None = None
    ) -> None:
        self.path: Final = os.fspath(path)
        self._max_size: Final = max_size
        self._keep: Final = keep
        self._writer: RecordingWriter | None = None
        self._constants = 0, 0, 0
        self._began_ns = 0
        self._former_bytes = 0
        self.records = 0
        """Records written, in all files."""
        self.files = 0
        """Files begun."""
        self.is_over = False
        """Whether the file is full, and none may follow."""
        self._check_path()

    @property
    def size(self) -> int:
        """Bytes written, in all files."""
        return self._former_bytes + self._file_size

    def write(self, commits: Sequence[Seen]) -> None:
        """Append *commits*, as long as the series is not over.

        Raises:
            RecordingError: a file cannot be written or renamed.
        """
        for seen in commits:
            if self.is_over:
                return
            if self._writer is None or self._is_full or seen.constants != self._constants:
                self._writer = self._begin(seen)
            t_ns = seen.monotonic_ns - self._began_ns
            snapshot = seen.snapshot
            self._writer.write(
                Record(t_ns=t_ns, counter=seen.counter, seq_count=snapshot.seq_count, body=snapshot.body)
            )
            self.records += 1
            self.is_over = self._keep is None and self._is_full

    def close(self) -> None:
        """End the present file.

        Raises:
            RecordingError: it cannot be written.
        """
        if self._writer is not None:
            writer, self._writer = self._writer, None
            size = writer.size
            writer.close()
            with suppress(OSError):  # somebody may have moved it
                size = os.stat(self.path).st_size
            self._former_bytes += size

    @property
    def _file_size(self) -> int:
        return 0 if self._writer is None else self._writer.size

    @property
    def _is_full(self) -> bool:
        return self._max_size is not None and self._file_size >= self._max_size

    def _begin(self, seen: Seen) -> RecordingWriter:
        """Begin a file with the header for *seen*."""
        self.close()
        if self.files or self._keep is not None:
            self._shift()
        if self.files and seen.constants != self._constants:
            _log.info(
                "the segment has another counter, timescale or size (%s, were %s): what came before is in %s.1",
                "/".join(map(str, map(int, seen.constants))),
                "/".join(map(str, map(int, self._constants))),
                self.path,
            )
        self._constants, self._began_ns = seen.constants, seen.monotonic_ns
        counter_id, time_type, size = seen.constants
        header = RecordingHeader(
            format="vmclock-recording",
            version=1,
            counter_id=counter_id,
            time_type=time_type,
            segment_size=size,
            created=datetime.now(UTC),
        )
        writer = RecordingWriter(self.path, header, overwrite=False)
        self.files += 1
        return writer

    def _shift(self) -> None:
        """Give the former files their next numbers. The oldest is replaced by the one after it."""
        if not os.path.lexists(self.path):
            return
        free = 1
        while free != self._keep and os.path.lexists(f"{self.path}.{free}"):
            free += 1
        names = [self.path, *(f"{self.path}.{number}" for number in range(1, free + 1))]
        try:
            for former, name in reversed([*pairwise(names)]):
                os.replace(former, name)
        except OSError as exc:
            raise RecordingError(
                self.path,
                0,
                f"cannot be renamed to {self.path}.1 ({exc.strerror}); look who may write its directory",
            ) from exc

    def _check_path(self) -> None:
        """Say at once what would otherwise be found at the first commit, perhaps hours from now."""
        if not os.path.lexists(self.path):
            directory = os.path.dirname(self.path) or "."
            if not os.access(directory, os.W_OK | os.X_OK):
                wrong = "may not be written" if os.path.isdir(directory) else "is no directory"
                raise RecordingError(self.path, 0, f"cannot be written ({directory} {wrong}); choose another path")
        elif self._keep is None:
            raise RecordingError(
                self.path, 0, "is there already; choose another path, remove it, or keep it with --rotate"
            )
        else:
            try:
                RecordingReader(self.path).close()
            except RecordingError as exc:
                raise RecordingError(
                    self.path,
                    0,
                    f"is there already, and no recording ({exc.reason}); choose another path, or remove it",
                ) from exc
