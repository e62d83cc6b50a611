"""The play in files: a segment for the real readers, and a page that serves as the device."""

import mmap
import os
import struct
from pathlib import Path
from typing import Any, Final, Self, final

from vmclock_async.abi import SEGMENT_SIZE_WITH_GENERATION, CounterId, TimeType
from vmclock_async.models import VMClockBody
from vmclock_async.segment import SegmentWriter
from vmclock_async.testing._bodies import measured_here
from vmclock_async.testing._played import PlayedMachine
from vmclock_async.timebase import COUNTER_ID

__all__ = ("PlayedSegment",)

_SEQ_COUNT: Final = slice(0x0C, 0x10)


@final
class PlayedSegment(PlayedMachine):
    """A segment and a device that a test changes; a context manager.

    Its time is this machine's CLOCK_REALTIME to within a millisecond. For a clock with a fence:
    ``Clock(segment.path, fence=segment.device)``. Readers, here and in other processes, get what a real publisher
    promises: whole bodies, and a seq_count that goes on.

    Args:
        directory: where its two files will be; they stay there afterwards.
        has_device: whether the machine has a device; without one only ``report_disruption`` shows a restore.

    Raises:
        SegmentError, SegmentInUseError: as for ``SegmentWriter``.
    """

    def __init__(self, directory: str | os.PathLike[str], *, has_device: bool = True) -> None:
        super().__init__(has_device=has_device)
        self.path: Final = Path(directory) / "shm0"
        """The segment."""
        self.device: Final = Path(directory) / "vmclock0"
        """The page that stands for ``/dev/vmclock0``: it shows disruptions, and no time."""
        self._device_writer: Final = SegmentWriter(self.device, size=SEGMENT_SIZE_WITH_GENERATION)
        self._writer: SegmentWriter | None = None
        try:
            self._change_device()
            self._commit(self._fresh())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the publisher and the device. The files stay, for readers that go on."""
        self._close_writer()
        self._device_writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measure(self, shift_ns: int) -> dict[str, Any]:
        return measured_here(shift_ns)

    def _take(self, body: VMClockBody) -> None:
        if self._writer is None:
            self._writer = SegmentWriter(self.path, size=SEGMENT_SIZE_WITH_GENERATION)
        self._writer.write(body, counter_id=COUNTER_ID, time_type=TimeType.UTC)

    def _take_device(self, body: VMClockBody) -> None:
        self._device_writer.write(body, counter_id=CounterId.INVALID)

    def _leave_odd(self) -> None:
        self._close_writer()
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), SEGMENT_SIZE_WITH_GENERATION) as page:
            (seq_count,) = struct.unpack("<I", page[_SEQ_COUNT])
            page[_SEQ_COUNT] = struct.pack("<I", seq_count | 1)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
