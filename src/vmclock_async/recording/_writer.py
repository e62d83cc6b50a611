"""The writing of a recording."""

import gzip
import os
from contextlib import suppress
from typing import IO, Final, Self, cast, final

from pydantic import BaseModel

from vmclock_async.errors import RecordingError
from vmclock_async.recording._records import Record, RecordingHeader

__all__ = ("RecordingWriter",)


@final
class RecordingWriter:
    """Writes a recording to `path`, compressed if that ends in ``.gz``; a context manager.

    Args:
        path: path of the recording.
        header: its first line.
        overwrite: whether a file that is there already is overwritten; otherwise it is refused.

    Each record is in the file when ``write`` returns, so that a recorder that is killed loses none. (A power cut loses
    the records that the system has not yet written to the disk.) The compressed file is one gzip member in which every
    record ends a block (Z_SYNC_FLUSH).

    Raises:
        RecordingError: the file cannot be written, or is there already.
    """

    __module__ = "vmclock_async.recording"

    def __init__(self, path: str | os.PathLike[str], header: RecordingHeader, *, overwrite: bool = True) -> None:
        self.path: Final = os.fspath(path)
        self._line = 0
        try:
            self._raw: Final = open(self.path, "wb" if overwrite else "xb")
        except OSError as exc:
            raise RecordingError(self.path, 0, f"cannot be written ({exc.strerror}); choose another path") from exc
        self._file: IO[bytes] = self._raw
        if self.path.endswith(".gz"):
            # It holds no time and no name, so that the same records make the same file.
            self._file = cast("IO[bytes]", gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0))
        try:
            self._write(header)
        except BaseException:
            with suppress(RecordingError):
                self.close()
            if not overwrite:  # it was made a moment ago, and would refuse the next recorder
                with suppress(OSError):
                    os.unlink(self.path)
            raise

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._raw.tell()

    def write(self, record: Record) -> None:
        """Append *record*.

        Raises:
            RecordingError: the file cannot be written.
        """
        self._write(record)

    def _write(self, model: BaseModel) -> None:
        self._line += 1
        try:
            self._file.write(model.model_dump_json().encode() + b"\n")
            self._file.flush()
        except OSError as exc:
            raise RecordingError(self.path, self._line, self._reason(exc)) from exc

    def close(self) -> None:
        """End the compressed data, and close the file.

        Raises:
            RecordingError: the file cannot be written.
        """
        try:
            with self._raw:  # gzip does not close a file that it was given
                self._file.close()
        except OSError as exc:
            raise RecordingError(self.path, self._line, self._reason(exc)) from exc

    def _reason(self, exc: OSError) -> str:
        remedy = "or choose another path" if self._line == 1 else "and read what was written before"
        return f"cannot be written ({exc.strerror}); make room, {remedy}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
