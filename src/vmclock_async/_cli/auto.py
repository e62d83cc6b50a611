"""The sources that ``publish auto`` publishes, if present, in order of rank.

    device      reports migrations and restores; some hypervisors' devices give the time too
    vmgenid     reports restores
    told        passes on what programs report
    chrony      the time of a daemon that knows its error, from several servers
    ptp         the time of the host's clock, if its error is known
    ntp         the time of servers that are set, or of a cloud's own
    kernel      the time of whatever daemon steers the kernel's clock

The time comes from the first of them that has it; a chronyd that is not synchronized has none. All are probed before
the start, and a message says what was found for each. One that is not installed is passed over in silence.
A missing source is probed again for as long as the publisher runs: a daemon may start, and a device may be plugged
in, after the publisher.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final, cast, final

import anyio
import anyio.to_thread

from vmclock_async._cli.output import complain
from vmclock_async._wording import failure
from vmclock_async.errors import (
    InvalidUpdateError,
    SourceError,
    SourceSettingsError,
    SourceUnavailableError,
    UnknownSourceError,
    VMClockError,
)
from vmclock_async.sources import Emit, MarksDisruption, Probes, Source

__all__ = ("AUTO", "CHOICES", "DEFAULTS", "Probe", "is_there", "pick")

AUTO: Final = "auto"
CHOICES: Final = ("device", "vmgenid", "told", "chrony", "ptp", "ntp", "kernel")
"""Names of all sources that may be picked, in order of rank."""
DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = {"told": {"restores": False}}
"""Options of sources that are picked, unless others are given. Nobody has promised to report each restore to told."""
_WITHOUT_TIME: Final = ("vmgenid", "told")
"""Sources that give no time, and are no reason to publish."""
_LONGEST_PROBE_S: Final = 5.0
"""Longest time, in seconds, to wait for a probe. A probe promises to block for at most two seconds."""
_LOOK_EVERY_S: Final = 5.0
_LOOK_AT_SERVERS_EVERY_S: Final = 60.0
_ASKS_SERVERS: Final = ("ntp",)
"""Sources whose probe sends requests to other machines."""

_log: Final = logging.getLogger("vmclock_async.auto")


def pick(build: Callable[[str], Source], *, besides: frozenset[str] = frozenset()) -> dict[str, Source]:
    """The sources that this machine has or may come to have, made by *build* from their names, in order of rank.

    Sources in *besides* are not picked, because they are named already.

    Raises:
        SourceError: none of them is usable now.
        SourceSettingsError: *build* refuses an option.
    """
    picked: dict[str, Source] = {}
    any_found = False
    for name in (name for name in CHOICES if name not in besides):
        try:
            source = build(name)
        except SourceSettingsError:
            raise
        except UnknownSourceError:
            continue
        except SourceError as exc:  # it is broken: waiting does not help
            complain(f"{AUTO}: not {name}: {exc.reason}", level=logging.INFO)
            continue
        probe = Probe(source)
        found, absent_because = probe.look()
        any_found |= absent_because is None and name not in _WITHOUT_TIME
        complain(
            f"{AUTO}: {name}: {found}"
            if absent_because is None
            else f"{AUTO}: not {name}: {absent_because}; it is looked for from now on",
            level=logging.INFO,
        )
        kind = _SoughtMarking if isinstance(source, MarksDisruption) else _Sought
        picked[name] = cast("Source", kind(name, source, probe, absent_because))
    if not (any_found or besides):
        tried = f"none of {', '.join(picked)} is usable here" if picked else "none that it picks is installed"
        raise SourceError(AUTO, f"no source to pick from: {tried}; name one")
    return picked


def is_there(source: Source) -> bool:
    """Whether *source*, if ``pick`` gave it, was there at the last look."""
    return not isinstance(source, _Sought) or source.absent_because is None


@final
class Probe:
    """Probes for a source, for a limited time, whatever the source's code does."""

    def __init__(self, source: Source) -> None:
        self._source: Final = source
        self._going_on: Future[str] | None = None

    def begin(self) -> Future[str]:
        """Begin a probe, unless one is going on."""
        if self._going_on is None:
            self._going_on = Future()
            thread = threading.Thread(
                target=self._probe, args=(self._going_on,), name=f"{AUTO} probe", daemon=True
            )
            thread.start()
        return self._going_on

    def look(self, longest_s: float = _LONGEST_PROBE_S) -> tuple[str, str | None]:
        """The finding, and the reason why the source is not there (None: it is there)."""
        done = self.begin()
        try:
            error = done.exception(longest_s)
        except TimeoutError:
            return "", f"its probe has not ended within {longest_s:g} s"
        self._going_on = None
        match error:
            case None:
                return done.result(), None
            case SourceError():
                return "", error.reason
            case VMClockError():
                return "", str(error)
            case _:
                return "", f"its probe failed with {failure(error)}"

    def _probe(self, done: Future[str]) -> None:
        try:
            done.set_result(str(self._source.probe()) if isinstance(self._source, Probes) else "installed")
        except BaseException as exc:  # whatever a plugin's probe raises, there are other sources to pick from
            done.set_exception(exc)


class _Sought:
    """A source that runs once it is there. While it cannot be used it counts as absent, and is probed again."""

    def __init__(self, name: str, source: Source, probe: Probe, absent_because: str | None) -> None:
        self.settings_type = source.settings_type
        self._name: Final = name
        self._source: Final = source
        self._probe: Final = probe
        self.absent_because = absent_because
        """The last reason that was reported, so that it is not repeated."""

    async def run(self, emit: Emit) -> None:
        while self.absent_because is not None:
            await anyio.sleep(_LOOK_AT_SERVERS_EVERY_S if self._name in _ASKS_SERVERS else _LOOK_EVERY_S)
            found, absent_because = await anyio.to_thread.run_sync(self._probe.look, abandon_on_cancel=True)
            if absent_because is None:
                _log.info("%s: %s is there now: %s", AUTO, self._name, found)
            elif absent_because != self.absent_because:
                _log.info("%s: not %s: %s", AUTO, self._name, absent_because)
            self.absent_because = absent_because
        try:
            await self._source.run(emit)
        except InvalidUpdateError:
            raise
        except SourceError as exc:
            raise SourceUnavailableError(self._name, exc.reason) from exc
        except VMClockError as exc:
            raise SourceUnavailableError(self._name, str(exc)) from exc


@final
class _SoughtMarking(_Sought):
    """A sought source that can also be asked for the disruption marker."""

    def disruption_marker(self) -> int | None:
        return cast("MarksDisruption", self._source).disruption_marker()
