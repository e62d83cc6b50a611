"""The writer's side of the publisher: from one update to one commit. Nothing here waits.

Right before each commit of merged contents the world is looked at once more: whether the machine was suspended,
and whether the device's marker has moved, of which its own update may still be on the way. A change is committed
along with what it voids.
"""

import logging
from collections.abc import Mapping
from typing import Final, final

from pydantic import ValidationError

from vmclock_async._publishing.merger import Merger
from vmclock_async._publishing.plausibility import Plausibility, without_time
from vmclock_async._publishing.relaying import is_relayed
from vmclock_async._strangers import failure
from vmclock_async._wording import validation_reason
from vmclock_async.abi import Flags, name_of
from vmclock_async.errors import ClockError, InvalidUpdateError, SourceError
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.reckoning import bounds_at
from vmclock_async.segment import SegmentWriter
from vmclock_async.sources import MarksDisruption, Source
from vmclock_async.timebase import COUNTER_ID, Continuity, counter_ticks

__all__ = ("Committer",)

_NOTICES: Final = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT

_log: Final = logging.getLogger("vmclock_async.publisher")


@final
class Committer:
    """Commits to the segment of *writer* what *sources* say; counts go on from *previous*, of the run before."""

    def __init__(
        self, writer: SegmentWriter, sources: Mapping[str, Source], *, previous: "Committer | None" = None
    ) -> None:
        self._writer: Final = writer
        # Of each source, whether it can be asked for its marker: to find that out takes longer than to ask.
        self._sources: Final = {name: _marking(name, source) for name, source in sources.items()}
        # Of the run before, too: a suspend between the two is one.
        self._continuity: Final[Continuity] = previous._continuity if previous else Continuity()
        self.commits: int = previous.commits if previous else 0
        self.seq_count: int | None = None
        """Of the last commit."""
        self._told_time: tuple[str | None, str] | None = None
        """Where the time comes from, and its status or what is wrong with it, as the log says."""
        self.relaying = False
        """Whether what was committed last was relayed; then nothing is due but the next update."""
        contents = writer.contents
        if writer.interrupted:
            # Readers cannot read a half-done body, and need not wait for the next whole one.
            contents = contents._replace(body=_repaired(contents.body))
        elif writer.cold:
            # Readers may have been there before: a marker that goes to 0 and comes back would be two disruptions.
            contents = contents._replace(body=VMClockBody(disruption_marker=writer.last_marker))
        self._plausible: Final = {name: Plausibility() for name in sources}
        self._merger: Final[Merger] = Merger(
            sources,
            contents,
            cold=writer.cold,
            epoch=previous.epoch if previous else 0,
            device_marker=previous._merger.disruptions.device_marker if previous else None,
        )
        if writer.interrupted:
            self._write(contents)

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._merger.disruptions.epoch

    @property
    def groups(self) -> dict[str, str | None]:
        """Which source each group of fields comes from."""
        return self._merger.groups

    def take(self, name: str, update: BodyUpdate, epoch: int | None) -> bool:
        """Commit *update* of the source *name*, measured in *epoch*; False: dropped, for that has ended.

        Raises:
            InvalidUpdateError: it holds what is no value of its field, or a time in a wrong unit, or an incomplete one.
            SegmentError: the segment cannot be written.
        """
        _require_valid(name, update)
        sole = len(self._sources) == 1
        if is_relayed(update, sources=len(self._sources)):
            self.relaying = True
            self._write(contents := self._merger.relay(update))
            if self._told_time is None:  # later ones may come as fast as a recording can be replayed
                self._tell_time(contents)
            return True
        self.relaying = False
        update = self._believable(name, update)
        looked_at = self._look()
        if epoch is not None and epoch != self.epoch:
            self._commit(always=False)
            return False
        self._merger.hear(name, update, looked_at=looked_at[1] if looked_at and looked_at[0] == name else None)
        self._commit(always=sole)
        return True

    def look(self) -> None:
        """Commit what has become due without an update: a disruption, a source that went quiet.

        Raises:
            SegmentError: the segment cannot be written.
        """
        if not self.relaying:
            self._look()
            self._commit(always=False)

    def close(self) -> None:
        """Commit what is to be left behind, if that is not what is there."""
        if not (self.relaying or self._merger.disruptions.cold):
            self._look()
            self._merger.compose(counter_ticks())
            self._write_if_changed(contents := self._merger.close())
            self._tell_time(contents)

    def _look(self) -> tuple[str, int] | None:
        """Take note of what happened; the source that marks disruptions, and its marker, if it can be asked."""
        if reason := self._continuity.break_seen():
            self._merger.interrupted(reason)
        marked = self._ask_for_marker()
        if marked:
            self._merger.marker_is(*marked)
        self._merger.look(counter_ticks())
        self._merger.complaints.say_what_is_due()
        return marked

    def _believable(self, name: str, update: BodyUpdate) -> BodyUpdate:
        """*update*, without a time that readers would believe and that cannot be true.

        A page is from outside, and its nonsense ends nothing. What else a source sends is its own code's.
        """
        objection = self._plausible[name].objection(update)
        if objection is None:
            return update
        if objection.is_fault and not update.verbatim:
            raise InvalidUpdateError(name, objection.reason)
        if objection.is_harmless:
            self._merger.complaints.add(name, "time of no use", objection.reason)
            return update
        self._merger.complaints.add(name, "time that cannot be true", f"{objection.reason} It is not published")
        return without_time(update)

    def _ask_for_marker(self) -> tuple[str, int] | None:
        for name, source in self._sources.items():
            if source is not None and (marker := _marker_of(name, source)) is not None:
                return name, marker
            if name == self._merger.marker_source:
                return None  # it tells by its updates alone
        return None

    def _commit(self, *, always: bool) -> None:
        contents = self._merger.compose(counter_ticks())
        if always:
            self._write(contents)
        else:
            self._write_if_changed(contents)
        self._tell_time(contents)

    def _write_if_changed(self, contents: Contents) -> None:
        if contents != self._writer.contents or self._merger.disruptions.cold:
            self._write(contents)

    def _write(self, contents: Contents) -> None:
        self.seq_count = self._writer.write(
            contents.body, counter_id=contents.counter_id, time_type=contents.time_type
        )
        self._merger.disruptions.cold = False
        self.commits += 1

    def _tell_time(self, contents: Contents) -> None:
        """Log where the time comes from and how good it is, where that is another than before."""
        source = self._merger.groups["time"]
        origin = "the time of before is held" if source is None else f"the time comes from {source}"
        try:
            bounds = bounds_at(contents, counter_ticks(), counter_id=COUNTER_ID)
        except ClockError as exc:
            told, text = type(exc).__name__, f"there is no bounded time: {exc.seen}"
        else:
            told = name_of(contents.body.clock_status)
            text = f"{origin}: +/- {bounds.error_ns / 10**6:.3f} ms, {told}"
        if self._told_time != (source, told):
            self._told_time = source, told
            _log.info("%s", text)


def _repaired(body: VMClockBody) -> VMClockBody:
    """The void body that takes the place of the half-written *body*: what is an event when it changes stays as it is.

    Each of that is in one word of the page, and so as it was before the commit, or as it was to be. A generation of 0
    may be one of which only the flag was written: it is left out, because readers remember the one before. The period
    says that the body told a time, in a timescale that stays.
    """
    generation = body.vm_generation_counter or None
    kept = _NOTICES if generation is None else _NOTICES | Flags.VM_GEN_COUNTER_PRESENT
    return VMClockBody(
        disruption_marker=body.disruption_marker,
        vm_generation_counter=generation,
        flags=Flags(body.flags & kept),
        leap_indicator=body.leap_indicator,
        counter_period_frac_sec=body.counter_period_frac_sec,
    )


def _require_valid(name: str, update: BodyUpdate) -> None:
    """Validated once more, for model_copy() lets in unseen what is no value of its field."""
    try:
        BodyUpdate.model_validate({field: getattr(update, field) for field in update.model_fields_set})
    except ValidationError as exc:
        raise InvalidUpdateError(name, f"sent what is no update: {validation_reason(exc)}") from exc
    except Exception as exc:  # a BodyUpdate of a stranger's making, which model_construct() does not look at
        raise InvalidUpdateError(name, f"sent what is no update: {failure(exc)}") from exc


def _marking(name: str, source: Source) -> MarksDisruption | None:
    try:
        return source if isinstance(source, MarksDisruption) else None
    except Exception as exc:  # a stranger's code, which may compute its attributes
        raise SourceError(name, f"its attribute disruption_marker failed with {failure(exc)}") from exc


def _marker_of(name: str, source: MarksDisruption) -> int | None:
    try:
        marker = source.disruption_marker()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a stranger's code: whatever it raises must name the source
        raise SourceError(name, f"disruption_marker() failed with {failure(exc)}") from exc
    if marker is not None and not (type(marker) is int and 0 <= marker < 2**64):
        raise SourceError(name, f"disruption_marker() returned {marker!r}, not None or an integer of 64 bits")
    return marker
