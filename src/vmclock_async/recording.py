"""Recordings: the commits of a segment as JSON Lines, optionally compressed with gzip.

The first line is the header, and each line after it is a commit. A recorder that was killed may leave a truncated last
line: only that line is lost, with a warning in the log. Any other bad line is an error that names its number. A
compressed recording that was cut anywhere gives every line that was written whole before the cut.

Reading and writing here block; asynchronous callers do it in a worker thread, some hundred records at a time.
"""

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader, FileIO
from typing import IO, Annotated, Final, Literal, Self, cast, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from vmclock_async._wording import validation_reason
from vmclock_async.abi import MAX_SIZE, SEGMENT_SIZE
from vmclock_async.errors import RecordingError
from vmclock_async.models import VMClockBody

__all__ = ("Record", "RecordingHeader", "RecordingReader", "RecordingWriter")

_logger = logging.getLogger(__name__)

_LONGEST_LINE: Final = 16384
"""Bytes; a record has about 700. Without a limit, a file of another kind would be read whole as one line."""
_CHUNK: Final = 65536
_LONGEST_SILENCE: Final = 2**17
"""Bytes of a compressed file that give no byte of text. A recording has about 40 of them, at its beginning. A header
with a name of a gigabyte, or a million empty members, would keep Python busy for a minute and longer."""
_GZIP_MAGIC: Final = b"\x1f\x8b"

_U8 = Annotated[int, Field(ge=0, le=0xFF)]
_U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
_U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]


@final
class RecordingHeader(BaseModel):
    """The first line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["vmclock-recording"]
    version: Literal[1]
    counter_id: _U8
    """The counter_id of the recorded segment."""
    time_type: _U8
    """The time_type of the recorded segment."""
    segment_size: Annotated[int, Field(ge=SEGMENT_SIZE, le=MAX_SIZE)]
    """Bytes in the recorded segment."""
    created: AwareDatetime
    """When the recording began."""


@final
class Record(BaseModel):
    """One commit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    t_ns: _U64
    """Monotonic nanoseconds since the first record; never less than in the record before."""
    counter: _U64 | None
    """Raw counter of the recorded machine when the commit was seen; None where that is not known."""
    seq_count: _U32
    """The seq_count of the recorded segment; a step of more than 2 shows that commits in between were not seen."""
    body: VMClockBody


class _CompressedFile(BufferedReader):
    """A file as gzip reads it. It refuses a long stretch of the file that gives no text."""

    silence = 0
    """Bytes that gzip has read since this was set to 0."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.silence > _LONGEST_SILENCE:
            raise gzip.BadGzipFile(f"more than {_LONGEST_SILENCE} bytes without a byte of text in them")
        data = super().read(size)
        self.silence += len(data)
        return data


@final
class RecordingReader:
    """Reads the recording at `path`; a context manager.

    Raises:
        RecordingError: the file is missing, unreadable or empty, or its header is not of this format and version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = os.fspath(path)
        self._line = 0
        self._t_ns = 0
        self._cut = False
        self._failure: RecordingError | None = None
        try:
            if not os.path.isfile(self.path):
                os.stat(self.path)
                raise RecordingError(self.path, 0, "is not a regular file; give the path of a recording")
            self._raw: Final = _CompressedFile(FileIO(self.path))
            self._file: IO[bytes] = self._raw
            # The content decides, not the name: a recording that was renamed is still one.
            if self._raw.peek(2)[:2] == _GZIP_MAGIC:
                self._file = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw, mode="rb"))
        except OSError as exc:
            raise RecordingError(self.path, 0, f"cannot be read ({exc.strerror}); check the path") from exc
        except ValueError as exc:  # a null character in the path
            raise RecordingError(self.path, 0, f"can be no path ({exc})") from exc
        self._lines = self._read_lines()
        try:
            self.header: Final = self._read_header()
        except BaseException:
            self._raw.close()
            raise

    def read(self, limit: int = 512) -> list[Record]:
        """The next records, at most *limit*; none at the end.

        Raises:
            RecordingError: the line after the records read so far is bad; the message names it.
        """
        if self._failure is not None:
            raise self._failure
        records: list[Record] = []
        try:
            while len(records) < limit and (line := next(self._lines, None)) is not None:
                record = self._parse_record(line)
                if record is None:
                    self._cut = False  # the log has said so already
                    break
                records.append(record)
            if self._cut and len(records) < limit:
                _logger.warning("%s: the compressed data is cut short after line %d", self.path, self._line)
                self._cut = False
        except RecordingError as exc:
            self._failure = exc  # the good records before it come first
            if not records:
                raise
        return records

    def count(self, limit_bytes: int) -> int | None:
        """Records in the file, or None if it has more than *limit_bytes* of text; call ``rewind`` to read on.

        It counts lines, whatever is in them, and so takes no more than the time to decompress them.

        Raises:
            RecordingError: the compressed data is damaged.
        """
        self._file.seek(0)
        lines = size = 0
        end = b"\n"
        while chunk := self._read_chunk():
            size += len(chunk)
            if size > limit_bytes:
                return None
            lines += chunk.count(b"\n")
            end = chunk[-1:]
        return lines + (end != b"\n") - 1  # without the header

    def rewind(self) -> None:
        """Start again with the first record."""
        self._file.seek(0)
        self._line = self._t_ns = 0
        self._cut = False
        self._failure = None
        self._lines = self._read_lines()
        next(self._lines)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_lines(self) -> Iterator[bytes]:
        """The lines with their newlines; the last may lack its own."""
        rest = b""
        while chunk := self._read_chunk():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line += 1
                self._refuse_long(line)
                yield line + b"\n"
            if len(rest) > _LONGEST_LINE:
                self._line += 1
                self._refuse_long(rest)
        if rest:
            self._line += 1
            yield rest

    def _refuse_long(self, line: bytes) -> None:
        if len(line) > _LONGEST_LINE:
            raise self._error(f"a line of more than {_LONGEST_LINE} bytes: this is no recording")

    def _read_chunk(self) -> bytes:
        self._raw.silence = 0
        try:
            return cast("bytes", self._file.read1(_CHUNK))  # type: ignore[attr-defined]
        except EOFError:
            self._cut = True
            return b""  # the compressed file was cut short; the rest of its text has been read
        except (gzip.BadGzipFile, zlib.error) as exc:
            raise RecordingError(
                self.path, self._line, f"the compressed data is damaged after it ({exc})"
            ) from exc
        except OSError as exc:
            raise RecordingError(self.path, self._line, f"cannot be read on ({exc.strerror})") from exc

    def _read_header(self) -> RecordingHeader:
        line = next(self._lines, None)
        if line is None:
            raise RecordingError(self.path, 0, "is empty; a recording begins with its header")
        try:
            return RecordingHeader.model_validate_json(line)
        except ValidationError as exc:
            raise self._error(
                f"{validation_reason(exc)}; a recording begins with a vmclock-recording header of version 1"
            ) from exc

    def _parse_record(self, line: bytes) -> Record | None:
        try:
            record = Record.model_validate_json(line)
        except ValidationError as exc:
            if not line.endswith(b"\n") and not _is_json(line):
                _logger.warning("%s, line %d: cut short, and left out", self.path, self._line)
                return None
            raise self._error(f"{validation_reason(exc)}; correct or remove the line") from exc
        if record.t_ns < self._t_ns:
            raise self._error(f"t_ns goes back from {self._t_ns} to {record.t_ns}; put the records in order")
        self._t_ns = record.t_ns
        return record

    def _error(self, reason: str) -> RecordingError:
        return RecordingError(self.path, self._line, reason)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@final
class RecordingWriter:
    """Writes a recording to `path`, compressed if that ends in ``.gz``; a context manager.

    Each record is in the file when ``write`` returns, so that a recorder that is killed loses none. (A power cut loses
    the records that the system has not yet written to the disk.) The compressed file is one gzip member in which every
    record ends a block (Z_SYNC_FLUSH).

    Raises:
        RecordingError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], header: RecordingHeader) -> None:
        self.path: Final = os.fspath(path)
        self._line = 0
        try:
            self._raw: Final = open(self.path, "wb")
        except OSError as exc:
            raise RecordingError(self.path, 0, f"cannot be written ({exc.strerror})") from exc
        self._file: IO[bytes] = self._raw
        if self.path.endswith(".gz"):
            # It holds no time and no name, so that the same records make the same file.
            self._file = cast("IO[bytes]", gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0))
        try:
            self._write(header)
        except BaseException:
            with suppress(RecordingError):
                self.close()
            raise

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
            raise RecordingError(self.path, self._line, f"cannot be written ({exc.strerror})") from exc

    def close(self) -> None:
        """End the compressed data, and close the file.

        Raises:
            RecordingError: the file cannot be written.
        """
        try:
            with self._raw:  # gzip does not close a file that it was given
                self._file.close()
        except OSError as exc:
            raise RecordingError(self.path, self._line, f"cannot be written ({exc.strerror})") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
