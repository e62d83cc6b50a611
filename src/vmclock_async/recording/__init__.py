"""Recordings: the commits of a segment as JSON Lines, optionally compressed with gzip.

The first line is the header, and each line after it is a commit. A recorder that was killed may leave a truncated last
line: only that line is lost, with a warning in the log. Any other bad line is an error that names its number. A
compressed recording that was cut anywhere gives every line that was written whole before the cut.

Reading and writing here block; asynchronous callers do it in a worker thread, some hundred records at a time.
"""

from vmclock_async.recording._moments import Moment
from vmclock_async.recording._reader import RecordingReader
from vmclock_async.recording._records import Record, RecordingHeader
from vmclock_async.recording._writer import RecordingWriter

__all__ = ("Moment", "Record", "RecordingHeader", "RecordingReader", "RecordingWriter")
