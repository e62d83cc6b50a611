"""The segment: one VMClock page in a file, written by one process and read by any.

Invariants:
    * Only ``_core`` touches mapped bytes. seq_count is even at rest and odd inside a commit, so a read returns
      one whole body or raises, never a mix of two.
    * seq_count goes up by two at each commit, modulo 2**32, and goes on through restarts of the writer: within one
      inode no number comes twice while somebody may remember it.
    * The writer never truncates or replaces the file of a segment, because a process that has it mapped would get
      SIGBUS, and a bind mount would keep the old file.
    * A writer takes only files of root and of its own user, and none that others may write: they could
      change the time, or cut the file. Readers say who owns a segment; a clock refuses one that others may write.
    * The boot_id that is kept with the file names the boot it belongs to; without one, the file's time decides.
    * version becomes 1 at the first commit, not before: no reader takes the zeros of a cold start for a body.

Opening blocks for file operations (a cold start calls fsync()). ``write`` and ``seq_count`` do not wait;
``snapshot`` waits at most 100 ms; ``wait_changed`` is asynchronous.
"""

from vmclock_async._segment.reader import SegmentReader, SegmentReaderStatistics
from vmclock_async._segment.writer import SegmentWriter

__all__ = ("SegmentReader", "SegmentReaderStatistics", "SegmentWriter")
