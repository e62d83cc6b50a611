"""What ``on`` has handled, in a file that outlasts it: the last marker, and the last generation.

The file is replaced as a whole and is on the disk before the next event is handled, so a crash leaves the old state or
the new one. A command that was interrupted by a crash is therefore run again at the next start.
"""

import os
from pathlib import Path
from typing import Annotated, Final, final

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmclock_async.events import Disrupted, Event, Restored
from vmclock_async.models import Snapshot, VMClockBody

__all__ = ("Handled", "StateFile")

_U64 = Annotated[int, Field(ge=0, lt=2**64)]


@final
class Handled(BaseModel):
    """The last marker and generation whose events were handled."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    marker: _U64
    generation: _U64 | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Handled":
        """The state of a hook that begins with *snapshot*."""
        body = snapshot.body
        return cls(marker=body.disruption_marker, generation=body.vm_generation_counter)

    def as_body(self) -> VMClockBody:
        """A body with this marker and generation and no time: for ``Clock.events(since=...)``."""
        return VMClockBody(disruption_marker=self.marker, vm_generation_counter=self.generation)

    def joined_by(self, snapshot: Snapshot) -> "Handled":
        """This state where *snapshot* is the first to show a generation, and the machine was not disrupted since."""
        if self.generation is None and snapshot.body.disruption_marker == self.marker:
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
                return Handled(marker=event.marker_after, generation=self.generation)
            case Restored():
                return Handled(marker=self.marker, generation=event.generation_after)
            case _:
                return self


@final
class StateFile:
    """The file at *path* that holds a ``Handled``; None: nothing is kept. Reading and writing wait for the disk."""

    def __init__(self, path: Path | None) -> None:
        self._path: Final = path

    def read(self) -> Handled | None:
        """The state; None if there is no file yet.

        Raises:
            typer.BadParameter: the file holds something else.
            OSError: the file cannot be read.
        """
        if self._path is None:
            return None
        try:
            return Handled.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"]
            raise typer.BadParameter(
                f"{self._path} is no state of this command ({reason}): remove it, or name another file"
            ) from exc

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
