"""What a clock source is, and finding the installed ones.

A source is found by entry point, group ``vmclock_async.sources``; the entry point's name is the source's name on
the command line. Names are listed without importing anything; a plugin is imported when it is chosen, so a broken
one breaks nothing else. ``VMCLOCK_ASYNC_SOURCES=a,b`` narrows the set to those names.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Final, NamedTuple, Protocol, cast, final, runtime_checkable

from pydantic import BaseModel, ValidationError

from vmclock_async._validation import validation_reason
from vmclock_async.errors import SourceError, SourceSettingsError, UnknownSourceError
from vmclock_async.models import BodyUpdate

__all__ = (
    "ENTRY_POINT_GROUP",
    "SOURCES_VARIABLE",
    "Emit",
    "InstalledSource",
    "MarksDisruption",
    "Probes",
    "Progress",
    "ReportsProgress",
    "Source",
    "build_source",
    "find_source",
    "installed_sources",
)

ENTRY_POINT_GROUP: Final = "vmclock_async.sources"
SOURCES_VARIABLE: Final = "VMCLOCK_ASYNC_SOURCES"


class Emit(Protocol):
    """How a source hands its updates to the publisher."""

    @property
    def epoch(self) -> int:
        """Number of the present epoch; every disruption of the counter (a migration, a suspend) begins another.

        The publisher sees these, a source need not look. The first of a publisher is 0: to a source that finds
        another at its first look, the machine was disrupted before.
        """
        ...

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        """Hand over *update*; returns once the writer task has taken it, so nothing queues up and grows old.

        A source of time reads ``emit.epoch`` before it measures and passes it as *epoch*: if a disruption has
        ended that epoch, the measurement is of no use any more, and the update is dropped. None: of the present
        epoch, or of any where it measures nothing, or has a disruption marker of its own.

        Raises:
            InvalidUpdateError: *update* is not a ``BodyUpdate``.
        """
        ...


class Source(Protocol):
    """A source of body updates.

    What it promises:
        * constructing it does no work that waits; all of it is in ``run``;
        * ``run`` returns when the source has nothing more to say, raises ``SourceUnavailableError`` when it is
          absent for now (it is run again, after a growing pause), and any other error when trying again is of no
          use (that ends the publisher);
        * ``run`` may be cancelled at any await, and leaves no task, thread or descriptor behind;
        * it may be run again after it has returned or raised.

    A source of time on a machine whose counter is not fit (``timebase.counter_unfit_because``) says that it has none,
    ``BodyUpdate(counter_id=CounterId.INVALID)``, and raises ``SourceUnavailableError`` with the reason.
    """

    settings_type: ClassVar[type[BaseModel]]
    """A pydantic model: its fields are the source's options on the command line and in the configuration file."""

    def __init__(self, settings: Any) -> None:
        """Make a source from an instance of ``settings_type``."""
        ...

    async def run(self, emit: Emit) -> None:
        """Measure, and ``await emit(update)``, until there is nothing more to say."""
        ...


class Progress(NamedTuple):
    """How far a source that will end has come."""

    done: int
    """Updates emitted."""
    total: int | None
    """Updates in all; None while it is not known, or where there is no end."""


@runtime_checkable
class ReportsProgress(Protocol):
    """A source that can tell how far it has come."""

    def progress(self) -> Progress:
        """How far this run has come; does not wait."""
        ...


@runtime_checkable
class MarksDisruption(Protocol):
    """A source that can be asked for the disruption marker between its updates."""

    def disruption_marker(self) -> int | None:
        """The marker as it is now, 0 to 2**64 - 1; None while it is not known. Called on the event loop: does not wait.

        Multiples of 2**32 are the publisher's own: two markers that differ by one are the same disruption.

        The publisher asks right before each commit: no time from before a disruption is to be committed after it.
        """
        ...


@runtime_checkable
class Probes(Protocol):
    """A source that can tell whether this machine has what it reads."""

    def probe(self) -> str:
        """What there is, in a few words; may block for two seconds. For ``publish auto``.

        Raises:
            VMClockError: it is not there, or cannot be used; says what to do.
        """
        ...


@final
@dataclass(frozen=True)
class InstalledSource:
    """A source that some installed distribution offers; not imported yet."""

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    def load(self) -> type[Source]:
        """Import the plugin and return its source class.

        Raises:
            SourceError: it cannot be imported, or is no source.
        """
        try:
            loaded = self.entry_point.load()
        except Exception as exc:  # whatever a stranger's module does at import, it is that plugin's failure
            raise SourceError(
                self.name,
                f"{self.entry_point.value} of {self.distribution} {self.version} cannot be imported "
                f"({type(exc).__name__}: {exc}); repair or uninstall that distribution",
            ) from exc
        if not (hasattr(loaded, "settings_type") and callable(getattr(loaded, "run", None))):
            raise SourceError(
                self.name,
                f"{self.entry_point.value} of {self.distribution} is no source: it lacks settings_type or run()",
            )
        return cast("type[Source]", loaded)


def installed_sources() -> dict[str, InstalledSource]:
    """The installed sources by name, in alphabetical order; imports none of them.

    Raises:
        SourceError: two distributions offer a source of the same name.
    """
    chosen = os.environ.get(SOURCES_VARIABLE)
    names = None if chosen is None else {name.strip() for name in chosen.split(",")}
    found: dict[str, InstalledSource] = {}
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry_point: entry_point.name):
        if names is not None and entry_point.name not in names:
            continue
        metadata = entry_point.dist
        source = InstalledSource(
            name=entry_point.name,
            distribution=metadata.name if metadata else "an unknown distribution",
            version=metadata.version if metadata else "",
            entry_point=entry_point,
        )
        rival = found.setdefault(source.name, source)
        if rival.entry_point.value != entry_point.value or rival.distribution != source.distribution:
            raise SourceError(
                source.name,
                f"offered by both {rival.distribution} ({rival.entry_point.value}) and {source.distribution} "
                f"({entry_point.value}); uninstall one of them",
            )
    return found


def find_source(name: str) -> InstalledSource:
    """The installed source called *name*.

    Raises:
        UnknownSourceError: there is none; the message suggests the nearest.
        SourceError: two distributions offer one.
    """
    sources = installed_sources()
    if name in sources:
        return sources[name]
    nearest = get_close_matches(name, sources, n=1)
    if nearest:
        remedy = f"did you mean {nearest[0]}?"
    elif sources:
        remedy = f"installed are {', '.join(sources)}"
    else:
        remedy = "none is installed"
    if SOURCES_VARIABLE in os.environ:
        remedy += f" ({SOURCES_VARIABLE}={os.environ[SOURCES_VARIABLE]} narrows the choice)"
    raise UnknownSourceError(name, f"no source of this name; {remedy}")


def build_source(name: str, options: Mapping[str, object]) -> Source:
    """The source called *name*, made from *options* (strings, or values of the settings' own types).

    Raises:
        SourceSettingsError: an option is unknown, missing or out of range; names the option.
        UnknownSourceError, SourceError: as ``find_source`` and ``InstalledSource.load``.
    """
    source_type = find_source(name).load()
    try:
        settings = source_type.settings_type.model_validate(dict(options))
    except ValidationError as exc:
        allowed = ", ".join(source_type.settings_type.model_fields)
        raise SourceSettingsError(name, f"{validation_reason(exc)} (its options: {allowed})") from exc
    return source_type(settings)


# Not in the class bodies: there it would be a member of the protocol.
Emit.__module__ = Source.__module__ = "vmclock_async"
