"""One whole copy of a page, as it was read; and the contents of a page, as one commit writes them."""

from typing import Annotated, Any, Final, NamedTuple, Self, final

from pydantic import BaseModel, ConfigDict

from vmclock_async._models import fields
from vmclock_async._models.body import ALL_FIELDS, VMClockBody, body_in, trusted
from vmclock_async._models.fields import Range
from vmclock_async._models.update import BodyUpdate
from vmclock_async.abi import BODY_OFFSET, HEADER, SEGMENT_SIZE, CounterId, TimeType

__all__ = ("Contents", "Snapshot")

_flags: Final = fields.flags


class Contents(NamedTuple):
    """The contents that one commit writes: a body, and the page's two constants that give it its meaning."""

    body: VMClockBody
    counter_id: int
    time_type: int

    def updated(self, update: BodyUpdate) -> "Contents":
        """These contents with the fields that *update* speaks for."""
        counter_id, time_type = update.counter_id, update.time_type
        return Contents(
            update.applied_to(self.body),
            self.counter_id if counter_id is None else counter_id,
            self.time_type if time_type is None else time_type,
        )

    @classmethod
    def made_of(cls, values: dict[str, Any], flags: int, counter_id: int, time_type: int) -> "Contents":
        """The contents of *values* for each field of the body, of its own type and in range, and of *flags*.

        The dict becomes the body's own.
        """
        values["flags"] = _flags(flags)
        return cls(trusted(VMClockBody, values, ALL_FIELDS), counter_id, time_type)


@final
class Snapshot(BaseModel):
    """One whole copy of a page: its header, its body, and the inode it was read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    magic: Annotated[int, Range(0, 2**32 - 1)]
    size: Annotated[int, Range(0, 2**32 - 1)]
    """Bytes in the region, as the header says."""
    version: Annotated[int, Range(0, 0xFFFF)]
    counter_id: Annotated[CounterId | int, Range(0, 0xFF, fields.counter_id)]
    time_type: Annotated[TimeType | int, Range(0, 0xFF, fields.time_type)]
    seq_count: Annotated[int, Range(0, 2**32 - 1)]
    body: VMClockBody
    inode: int
    """st_ino of the file that was mapped: a replaced segment has another, unless the file system reuses the number."""
    opened: int = 0
    """How many files the reader had opened before that one: it differs for a replaced segment, whatever the inode."""

    @classmethod
    def unpack(cls, page: bytes, *, inode: int, opened: int = 0) -> Self:
        """The snapshot in *page*, which begins with the header.

        Raises:
            ValueError: the page has fewer than 104 bytes.
        """
        if len(page) < SEGMENT_SIZE:
            raise ValueError(f"a page has at least {SEGMENT_SIZE} bytes, not {len(page)}")
        magic, size, version, counter_id, time_type, seq_count = HEADER.unpack_from(page)
        values = {
            "magic": magic,
            "size": size,
            "version": version,
            "counter_id": fields.counter_id(counter_id),
            "time_type": fields.time_type(time_type),
            "seq_count": seq_count,
            "body": body_in(page, BODY_OFFSET, size),
            "inode": inode,
            "opened": opened,
        }
        return trusted(cls, values, _SNAPSHOT_FIELDS)


_SNAPSHOT_FIELDS: Final = set(Snapshot.model_fields)
