"""The protocol of a clock source, and the search for installed sources.

A source is found by entry point, group ``vmclock_async.sources``; the entry point's name is the source's name on
the command line. Names are listed without importing anything; a plugin is imported when it is chosen, so a broken
one breaks nothing else. Two distributions that offer one name break that name alone. ``VMCLOCK_ASYNC_SOURCES=a,b``
narrows the set to those names.
"""

import inspect
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, cast, final, runtime_checkable

from pydantic import BaseModel, ValidationError

from vmclock_async._wording import failure, validation_reason
from vmclock_async.errors import SourceError, SourceSettingsError, UnknownSourceError, VMClockError
from vmclock_async.models import BodyUpdate

if TYPE_CHECKING:
    from fractions import Fraction
    from importlib.metadata import EntryPoint

__all__ = (
    "ENTRY_POINT_GROUP",
    "SOURCES_VARIABLE",
    "Emit",
    "Explains",
    "Explanation",
    "InstalledSource",
    "MarksDisruption",
    "Probes",
    "Progress",
    "ReportsProgress",
    "RestsOnSystemClock",
    "Source",
    "Term",
    "build_source",
    "find_source",
    "installed_sources",
)

ENTRY_POINT_GROUP: Final = "vmclock_async.sources"
SOURCES_VARIABLE: Final = "VMCLOCK_ASYNC_SOURCES"

_log: Final = logging.getLogger("vmclock_async.sources")


class Emit(Protocol):
    """How a source hands its updates to the publisher."""

    @property
    def epoch(self) -> int:
        """Number of the present epoch; every disruption of the counter (a migration, a suspend) begins another.

        The publisher detects disruptions, so a source need not. A publisher's first epoch is 0: if a source reads
        another number at first, the machine was disrupted before that.
        """
        ...

    @property
    def segment(self) -> str:
        """Absolute path of the segment that is published; it may not exist yet."""
        ...

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        """Hand over *update*; returns once the writer task has taken it, so nothing queues up and grows old.

        A source of time reads ``emit.epoch`` before each measurement and passes it as *epoch*: if a disruption has
        ended that epoch, the measurement is of no use any more, and the update is dropped. None: the update belongs
        to the present epoch; or to any epoch, because it measures nothing or has a disruption marker of its own.

        Raises:
            InvalidUpdateError: *update* is not a ``BodyUpdate``.
        """
        ...

    async def disrupt(self, reason: str, *, restored: bool = False) -> None:
        """Report that the machine was disrupted; returns once the new disruption marker is committed.

        For a source that has no marker of its own to emit. Every time measured before is void. Two sources may report
        the same restore: the second report, within ten seconds, draws no other generation counter.

        Args:
            reason: what happened, for the log.
            restored: whether the machine was restored from a snapshot, so that other machines may have been restored
                from the same one. If no source gives a generation counter, the publisher commits another one of its
                own. If one does, that counter alone says whether the machine was restored.

        Raises:
            SegmentError: the publisher relays a sole source bit for bit.
            SourceError: the run has ended.
        """
        ...

    async def announce_restores(self) -> None:
        """Announce that from now on this source reports each restore of the machine (``disrupt(restored=True)``).

        The segment has a generation counter from the next commit on, so clocks know that they see restores. It holds
        until the source's run ends: one that becomes unavailable announces it again in its next run.
        """
        ...


class Source(Protocol):
    """A source of body updates.

    A source promises:
        * its constructor does no work that waits; all such work is in ``run``, an async function that never blocks
          the event loop, and emits with ``await emit(update)``;
        * ``run`` returns when the source has nothing more to say, raises ``SourceUnavailableError`` when the source
          is absent for now (it is run again, after a growing pause), and any other error when a new attempt is of no
          use (that ends the publisher);
        * ``run`` may be cancelled at any await, and leaves no task, thread or descriptor behind;
        * it may be run again after it has returned or raised.

    On a machine whose counter is not fit (``timebase.counter_unfit_because``), a source of time says that it has no
    time, ``BodyUpdate(counter_id=CounterId.INVALID)``, and raises ``SourceUnavailableError`` with the reason.
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
    """Updates in all; None while the number is not known, or where there is no end."""


@runtime_checkable
class ReportsProgress(Protocol):
    """A source that can say how far it has come."""

    def progress(self) -> Progress:
        """How far this run has come; the call does not wait."""
        ...


@runtime_checkable
class MarksDisruption(Protocol):
    """A source that can be asked for the disruption marker between its updates."""

    def disruption_marker(self) -> int | None:
        """The marker as it is now, 0 to 2**64 - 1; None while it is not known.

        Multiples of 2**32 are the publisher's own: two markers that differ by one are the same disruption.

        The publisher asks on the event loop, so this must not wait. It asks right before each commit, because no time
        from before a disruption may be committed after it.
        """
        ...


@runtime_checkable
class RestsOnSystemClock(Protocol):
    """A source of time that says whether it makes its time from this machine's clock, CLOCK_REALTIME.

    ``step_system_clock`` never sets that clock from a time that was made from it, and from a time whose source does
    not say only where its caller says so.
    """

    rests_on_system_clock: bool | None
    """True also if chronyd, or another daemon that steers the clock, says how far it is off; None: it is not known."""


class Term(NamedTuple):
    """A term of a measurement's error."""

    name: str
    ns: "int | Fraction"
    """Nanoseconds; below 0 where something else that is known takes a part of the others away."""
    words: str
    """Why it is in the sum, in a few words for people."""


class Explanation(NamedTuple):
    """The terms that a source has added up to the error of a measurement."""

    counter_value: int
    """The measurement's own, which tells it from others."""
    terms: tuple[Term, ...]
    """Their sum, rounded up, is the ``error_ns`` that the source gave ``BodyUpdate.measured``."""


@runtime_checkable
class Explains(Protocol):
    """A source of time that can say of which terms it made the bound, for ``vmclock-async explain``."""

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement that was emitted; None if there are none.

        The publisher asks on the event loop, after it has taken the update, so this must not wait.
        """
        ...


@runtime_checkable
class Probes(Protocol):
    """A source that can say whether this machine has what the source reads."""

    def probe(self) -> str:
        """A few words on what was found; ``publish auto`` calls this. It may block for two seconds.

        Raises:
            VMClockError: the thing is not there, or cannot be used; the message says what to do.
        """
        ...


@final
@dataclass(frozen=True)
class InstalledSource:
    """A source that an installed distribution offers; it is not imported yet."""

    name: str
    distribution: str
    version: str
    entry_point: "EntryPoint"

    rival: "InstalledSource | None" = None
    """Another distribution's source of the same name, which makes both unusable."""

    def load(self) -> type[Source]:
        """Import the plugin and return its source class.

        Raises:
            SourceError: the plugin cannot be imported, is no source, or another distribution offers the same name.
        """
        if self.rival is not None:
            raise SourceError(
                self.name,
                f"offered by both {self._offer} and {self.rival._offer}; uninstall one of the two distributions",
            )
        what = f"{self.entry_point.value} of {self.distribution} {self.version}"
        try:
            loaded = self.entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # whatever a stranger's module does at import, it is that plugin's failure
            raise SourceError(
                self.name, f"{what} cannot be imported ({failure(exc)}); repair or uninstall that distribution"
            ) from exc
        try:
            lack = _lack_of(loaded)
        except Exception as exc:  # a stranger's class may compute its attributes
            raise SourceError(
                self.name, f"{what} cannot be used ({failure(exc)}); repair or uninstall that distribution"
            ) from exc
        if lack is not None:
            raise SourceError(self.name, f"{what} is no source: {lack}; repair or uninstall that distribution")
        return cast("type[Source]", loaded)

    @property
    def _offer(self) -> str:
        return f"{self.distribution} ({self.entry_point.value})"


def _lack_of(loaded: object) -> str | None:
    """The reason why *loaded* is no source class; None if it is one."""
    if not (hasattr(loaded, "settings_type") and callable(getattr(loaded, "run", None))):
        return "it lacks settings_type or run()"
    settings_type: object = loaded.settings_type
    if not (isinstance(settings_type, type) and issubclass(settings_type, BaseModel)):
        return f"its settings_type is {settings_type!r}, not a class derived from pydantic.BaseModel"
    if not inspect.iscoroutinefunction(loaded.run):  # type: ignore[attr-defined]
        return "its run() is no async function; declare it with async def"
    return None


def installed_sources() -> dict[str, InstalledSource]:
    """The installed sources by name, in alphabetical order; imports none of them.

    A source that cannot be used is among them: its ``load`` says why.
    """
    chosen = os.environ.get(SOURCES_VARIABLE)
    names = None if chosen is None else {name.strip() for name in chosen.split(",")}
    found: dict[str, InstalledSource] = {}
    for source in sorted(_offered(), key=lambda source: source.name):
        if names is not None and source.name not in names:
            continue
        rival = found.setdefault(source.name, source)
        if (rival.entry_point.value, rival.distribution) != (source.entry_point.value, source.distribution):
            found[source.name] = replace(rival, rival=source)
    return found


def _offered() -> Iterator[InstalledSource]:
    """The sources that each distribution offers, even where the metadata of another cannot be read."""
    from importlib.metadata import distributions  # it takes a tenth of the package's import, and few need it

    seen = set()
    for distribution in distributions():
        name = "an unknown distribution"
        try:
            entry_points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            if not entry_points:
                continue
            name, version = distribution.metadata["Name"] or name, distribution.metadata["Version"] or ""
        except Exception as exc:  # a stranger's files
            _log.warning("the sources of %s are left out: its metadata cannot be read (%s)", name, failure(exc))
            continue
        normalized = re.sub(r"[-_.]+", "-", name).lower()
        if normalized in seen:
            continue  # hidden by the one that comes earlier on sys.path
        seen.add(normalized)
        for entry_point in entry_points:
            yield InstalledSource(entry_point.name, name, version, entry_point)


def find_source(name: str) -> InstalledSource:
    """The installed source called *name*.

    Raises:
        UnknownSourceError: there is none; the message suggests the nearest name.
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
        SourceSettingsError: an option is unknown, missing or out of range; the message names the option.
        UnknownSourceError, SourceError: as ``find_source`` and ``InstalledSource.load`` raise them.
        SourceError: the source's own code fails.
    """
    source_type = find_source(name).load()
    try:
        settings = source_type.settings_type.model_validate(dict(options))
    except ValidationError as exc:
        allowed = ", ".join(source_type.settings_type.model_fields)
        raise SourceSettingsError(name, f"{validation_reason(exc)} (its options: {allowed})") from exc
    except Exception as exc:  # a stranger's validator
        raise SourceError(name, f"its settings cannot be checked ({failure(exc)})") from exc
    try:
        return source_type(settings)
    except (VMClockError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # a stranger's constructor
        raise SourceError(name, f"cannot be made ({failure(exc)})") from exc


# This is not in the class bodies, because there it would be a member of the protocol.
Emit.__module__ = Source.__module__ = "vmclock_async"
