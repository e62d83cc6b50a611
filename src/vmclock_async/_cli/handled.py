"""What ``on`` has handled, in a file that outlasts it: the last marker, and the last generation.

The file is replaced as a whole and is on the disk before the next event is handled, so a crash leaves the old state or
the new one. A command that was interrupted by a crash is therefore run again at the next start. The state is good for
one boot of the machine, because markers begin again with the next; a snapshot has the boot that it was taken in.
"""

import os
from pathlib import Path
from typing import Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmclock_async._segment.boot import present_boot_id
from vmclock_async.abi import shows_restore
from vmclock_async.errors import VMClockError
from vmclock_async.events import Disrupted, Event, Restored
from vmclock_async.models import Snapshot, VMClockBody

__all__ = ("Handled", "StateFile")

_U64 = Annotated[int, Field(ge=0, lt=2**64)]


def present_boot() -> str:
    """The kernel's boot_id; empty where it cannot be read."""
    return (present_boot_id() or b"").decode("ascii", "replace")


@final
class Handled(BaseModel):
    """The last marker and generation whose events were handled."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    marker: _U64
    generation: _U64 | None
    judged_marker: _U64
    """The marker with which ``generation`` was compared last: the same, unless a restore of its commit is still due."""
    boot_id: str
    """The kernel's boot_id; empty where it cannot be read."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Handled":
        """The state of a hook that begins with *snapshot*."""
        body = snapshot.body
        marker = body.disruption_marker
        return cls(
            marker=marker,
            generation=body.vm_generation_counter,
            judged_marker=marker,
            boot_id=present_boot(),
        )

    def as_body(self) -> VMClockBody:
        """A body with this marker and generation and no time: for ``Clock.events(since=...)``."""
        return VMClockBody(disruption_marker=self.judged_marker, vm_generation_counter=self.generation)

    def joined_by(self, snapshot: Snapshot) -> "Handled":
        """This state where *snapshot* is the first to show a generation, and the machine was not disrupted since."""
        if self.generation is None and snapshot.body.disruption_marker == self.judged_marker:
            return self.of(snapshot)
        return self

    def knows(self, event: Event) -> bool:
        """Whether *event* brings only what was handled already.

        A page that begins again lacks marker and generation for a while. When they are back, they may look new.
        """
        match event:
            case Disrupted():
                return event.marker_after == self.marker
            case Restored():
                return event.generation_after == self.generation
            case _:
                return False

    def after(self, event: Event) -> "Handled":
        """The state once *event* was handled."""
        match event:
            case Disrupted():
                marker, generation = event.marker_after, event.snapshot.body.vm_generation_counter
                is_restored = shows_restore(self.generation, self.judged_marker, generation, marker)
                judged = self.judged_marker if is_restored else marker
                return self.model_copy(update={"marker": marker, "judged_marker": judged})
            case Restored():
                marker, generation = event.snapshot.body.disruption_marker, event.generation_after
                return self.model_copy(update={"generation": generation, "judged_marker": marker})
            case _:
                return self


@final
class StateFile:
    """The file at *path* that holds a ``Handled``; None: nothing is kept. Reading and writing wait for the disk."""

    def __init__(self, path: Path | None) -> None:
        self._path: Final = path

    def read(self) -> Handled | None:
        """The state; None if there is no file yet, or the machine was booted since.

        Raises:
            VMClockError: the file holds something else.
            OSError: the file cannot be read.
        """
        if self._path is None:
            return None
        try:
            handled = Handled.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"]
            raise VMClockError(
                f"{self._path}: no state of this command ({reason}); remove it, or name another file"
            ) from exc
        return handled if handled.boot_id == present_boot() else None

    def write(self, handled: Handled) -> None:
        """Replace the state by *handled*.

        Raises:
            OSError: the file or its directory cannot be written.
        """
        if self._path is None:
            return
        directory, new = self._path.parent, self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(handled.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)  # the name too
        finally:
            os.close(fd)
