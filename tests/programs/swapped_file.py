"""Open a writer while a stranger puts a file of their own in place of the segment."""

import os
import sys
from types import FrameType

from vmclock_async import SegmentError, SegmentWriter

path, theirs = sys.argv[1:]


def step(frame: FrameType, event: str, argument: object) -> None:
    """A stranger puts his file there once the writer has looked."""
    if frame.f_code.co_name == "_open" and os.path.exists(theirs):
        os.rename(theirs, path)


sys.settrace(step)
try:
    SegmentWriter(path.removesuffix(".lock"))
except SegmentError as exc:
    print(exc)
