"""The two kinds of line in a recording."""

from typing import Annotated, Literal, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from vmclock_async.abi import MAX_SIZE, SEGMENT_SIZE
from vmclock_async.models import VMClockBody

__all__ = ("Record", "RecordingHeader")

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


Record.__module__ = RecordingHeader.__module__ = "vmclock_async.recording"
