"""The reading of a recording."""

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from io import BufferedReader, FileIO
from typing import IO, Final, Self, cast, final

from pydantic import ValidationError

from vmclock_async._wording import validation_reason
from vmclock_async.errors import RecordingError
from vmclock_async.recording._bisection import near_offset
from vmclock_async.recording._moments import Moment
from vmclock_async.recording._records import Record, RecordingHeader

__all__ = ("RecordingReader",)

_logger = logging.getLogger("vmclock_async.recording")

_LONGEST_LINE: Final = 16384
"""Bytes; a record has about 700. Without a limit, a file of another kind would be read whole as one line."""
_CHUNK: Final = 65536
_LONGEST_SILENCE: Final = 2**17
"""Bytes of a compressed file that give no byte of text. A recording has about 40 of them, at its beginning. A header
with a name of a gigabyte, or a million empty members, would keep Python busy for a minute and longer."""
_GZIP_MAGIC: Final = b"\x1f\x8b"


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
    """Reads the recording at `path`, or a part of it; a context manager.

    The beginning of a part is found at once in an uncompressed recording, however long that is, by some twenty looks
    into it. What is compressed is read up to there.

    Args:
        path: path of the recording.
        start: the first record is the first that was seen then or later; None: the recording's first.
        until: no record that was seen then or later is read; None: read to the end.

    Raises:
        RecordingError: the file is missing, unreadable or empty, or its header is not of this format and version.
    """

    __module__ = "vmclock_async.recording"

    def __init__(
        self, path: str | os.PathLike[str], *, start: Moment | None = None, until: Moment | None = None
    ) -> None:
        self.path: Final = os.fspath(path)
        self._start: Final = start
        self._until: Final = until
        self._line = 0
        """Number of the last line that was read, without those in `_leapt`."""
        self._leapt = 0, 0
        """Offsets of the lines that were left out unread: the first, and the end."""
        self._offset = 0
        """Where the next line begins in the text."""
        self._t_ns = 0
        self._cut = False
        self._entered = start is None
        self._ended = False
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
            self._approach_start()
        except BaseException:
            self._raw.close()
            raise

    def read(self, limit: int = 512) -> list[Record]:
        """The next records, at most *limit*; none at the end.

        Raises:
            RecordingError: the line after the records read so far is bad; the message names it.
        """
        return self._read(limit, None)

    def _read(self, limit: int, end: int | None) -> list[Record]:
        """The same; it ends at the offset *end*, too, in the text."""
        if self._failure is not None:
            raise self._failure
        records: list[Record] = []
        try:
            while len(records) < limit and not self._ended and (end is None or self._offset <= end):
                line = next(self._lines, None)
                if line is None:
                    break
                record = self._parse_record(line)
                if record is None:
                    self._cut = False  # the log has said so already
                    break
                if not self._entered:
                    self._entered = self._start is None or bool(self._start.reached_by(record, self.header))
                self._ended = self._until is not None and bool(self._until.reached_by(record, self.header))
                if self._entered and not self._ended:
                    records.append(record)
            if self._cut and len(records) < limit:
                _logger.warning("%s: the compressed data is cut short after line %d", self.path, self._number())
                self._cut = False
        except RecordingError as exc:
            self._failure = exc  # the good records before it come first
            if not records:
                raise
        return records

    def count(self, limit_bytes: int) -> int | None:
        """Records in the recording or its part; call ``rewind`` to read on. None if they are too many to be counted.

        Of a whole recording it counts lines, whatever is in them, and so takes no more than the time to decompress
        them. The records of a part are read.

        Args:
            limit_bytes: most bytes of text to look at; those before a part count if they have to be read.

        Raises:
            RecordingError: the compressed data is damaged, or a record of the part is bad.
        """
        if self._start is not None or self._until is not None:
            return self._count_part(limit_bytes)
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

    def _count_part(self, limit_bytes: int) -> int | None:
        self.rewind()
        count, end = 0, self._offset + limit_bytes
        while records := self._read(512, end):
            count += len(records)
        return count if self._offset <= end else None

    def rewind(self) -> None:
        """Start again with the first record."""
        self._file.seek(0)
        self._line = self._offset = self._t_ns = 0
        self._leapt = 0, 0
        self._cut = self._ended = False
        self._entered = self._start is None
        self._failure = None
        self._lines = self._read_lines()
        next(self._lines)
        self._approach_start()

    def _approach_start(self) -> None:
        """Leap to a line not far before the part, if the text lies open; ``read`` leaves out the records up to it."""
        start = self._start
        if start is None or self._file is not self._raw:
            return

        def reached(line: bytes) -> bool | None:
            try:
                return start.reached_by(Record.model_validate_json(line), self.header)
            except ValidationError:
                return None

        fd = self._raw.fileno()
        try:
            near = near_offset(fd, self._offset, os.fstat(fd).st_size, reached)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        self._leapt = self._offset, near
        self._offset = near
        self._file.seek(near)
        self._lines = self._read_lines()

    def _number(self) -> int:
        """Number of the last line that was read. Only a message needs it, so only then are the lines leapt counted."""
        offset, end = self._leapt
        while offset < end and (chunk := os.pread(self._raw.fileno(), min(_CHUNK, end - offset), offset)):
            self._line += chunk.count(b"\n")
            offset += len(chunk)
        self._leapt = 0, 0
        return self._line

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
                self._offset += len(line) + 1
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
            raise self._unreadable(exc) from exc

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
                _logger.warning("%s, line %d: cut short, and left out", self.path, self._number())
                return None
            raise self._error(f"{validation_reason(exc)}; correct or remove the line") from exc
        if record.t_ns < self._t_ns:
            raise self._error(f"t_ns goes back from {self._t_ns} to {record.t_ns}; put the records in order")
        self._t_ns = record.t_ns
        return record

    def _unreadable(self, exc: OSError) -> RecordingError:
        return RecordingError(self.path, self._line, f"cannot be read on ({exc.strerror})")

    def _error(self, reason: str) -> RecordingError:
        return RecordingError(self.path, self._number(), reason)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
