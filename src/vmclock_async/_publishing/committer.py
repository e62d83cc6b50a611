"""The writer's side of the publisher: from one update to one commit. Nothing here waits.

Right before each commit of merged contents the committer observes the world once: the machine's counter, whether its
continuity broke, and whether the device's marker has moved (the device's own update may still be on the way). A change
and all that it voids go into one commit. The merger gets these observations and looks at nothing itself.

Data goes one way, from the sources to the page, with one exception: the committer asks the *source* for the device's
marker, right before each commit. An update that is on its way would come too late.
"""

import logging
from collections.abc import Mapping
from typing import Final, final

from pydantic import ValidationError

from vmclock_async._publishing.accounting import Accounting
from vmclock_async._publishing.agreement import Agreement
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._publishing.draft import as_freerunning
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async._publishing.plausibility import Plausibility, without_time
from vmclock_async._publishing.report import Report
from vmclock_async._publishing.standstill import Standstill
from vmclock_async._segment.time_source import TimeSource
from vmclock_async._timebase.continuity import Continuity, RecentClocksource
from vmclock_async._wording import failure, validation_reason
from vmclock_async.abi import Flags, name_of
from vmclock_async.errors import ClockError, InvalidUpdateError, SegmentError, SourceError, VMClockError
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.reckoning import bounds_at
from vmclock_async.segment import SegmentWriter
from vmclock_async.sources import MarksDisruption, RestsOnSystemClock, Source
from vmclock_async.timebase import COUNTER_ID, counter_ticks

__all__ = ("Committer",)

_NOTICES: Final = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT

_log: Final = logging.getLogger("vmclock_async.publisher")


@final
class Committer:
    """Commits to the segment of *writer* what *sources* say.

    Its counts go on from *previous*, the run before. *standstill* shows that the machine or the process stood still;
    *complaints* limit its log lines; *agreement*, if there is one, compares the sources at each commit.
    """

    def __init__(
        self,
        writer: SegmentWriter,
        sources: Mapping[str, Source],
        *,
        standstill: Standstill,
        complaints: Complaints | None = None,
        agreement: Agreement | None = None,
        previous: "Committer | None" = None,
    ) -> None:
        self._writer: Final = writer
        self._complaints: Final = complaints or Complaints(_log)
        self._standstill: Final = standstill
        self._agreement: Final = agreement
        # The sources that can be asked for their marker, else None: the check takes longer than the question.
        self._sources: Final = {name: _marking(name, source) for name, source in sources.items()}
        self._can_ask: Final = any(source is not None for source in self._sources.values())
        self._is_sole: Final = len(sources) == 1
        self._time_sources: Final = {name: _time_source(name, source) for name, source in sources.items()}
        self._accounting: Final = Accounting(sources)
        # It is taken over from the run before, so that a suspend between the two runs is seen.
        self._continuity: Final[Continuity] = (
            previous._continuity if previous else Continuity(clocksource=RecentClocksource())
        )
        self.commits: int = previous.commits if previous else 0
        self.seq_count: int | None = None
        """The seq_count of the last commit."""
        self._said_of_time: tuple[str | None, str] | None = None
        """The source of the time, and its status or its fault, as the log last said."""
        self._seen_of_time: tuple[object, ...] = ()
        """The values of the contents from which the log line was last made."""
        self._is_relaying = False
        """Whether the last commit was relayed; then only the next update is due."""
        self._is_spoilt = False
        """Whether an invalid update has left its traces in the merger: then the merger composes nothing more."""
        contents = writer.contents
        if writer.interrupted:
            # Readers cannot read a half-done body, and need not wait for the next whole one.
            contents = contents._replace(body=_repaired(contents.body))
        elif writer.cold:
            # There may have been readers before: a marker that goes to 0 and comes back would be two disruptions.
            contents = contents._replace(body=VMClockBody(disruption_marker=writer.last_marker))
        self._plausible: Final = {name: Plausibility() for name in sources}
        self._merger: Final[Merger] = Merger(
            sources,
            contents,
            cold=writer.cold,
            epoch=previous.epoch if previous else 0,
            device_marker=previous._merger.device_marker if previous else None,
            complaints=self._complaints,
        )
        if writer.interrupted:
            self._write(contents)

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._merger.epoch

    @property
    def groups(self) -> dict[str, str | None]:
        """Which source each group of fields comes from."""
        return self._merger.groups

    def publish(self, name: str, update: BodyUpdate, epoch: int | None) -> bool:
        """Commit *update* from the source *name*, measured in *epoch*; False: dropped, because that epoch has ended.

        Raises:
            InvalidUpdateError: *update* holds a time in a wrong unit, or an incomplete one; or its values are
                invalid, because ``model_construct`` made it.
            SegmentError: the segment cannot be written.
        """
        try:
            if update.verbatim and self._is_sole:
                self._publish_relayed(update)
                return True
            return self._publish_merged(name, update, epoch)
        except VMClockError:
            raise
        except Exception as exc:
            self._is_spoilt = True
            reason = _invalidity(update)  # nothing has validated yet what model_construct() makes
            if reason is None:
                raise  # it is valid, so the error is not the source's
            raise InvalidUpdateError(name, f"sent what is no update: {reason}") from exc

    def take_report(self, report: Report) -> SegmentError | None:
        """Commit the disruption that *report* names, or the generation counter that it announces.

        Returns the reason why it cannot be committed; None: it is.

        Raises:
            SegmentError: the segment cannot be written.
        """
        if self._is_relaying:
            (name,) = self._sources
            return SegmentError(
                self._writer.path,
                f"it is a copy of what {name} says, bit for bit, so that no report can be added; publish a second "
                "source beside it",
            )
        self._notice()
        self._merger.take_report(report)
        if report.reason is not None or not self._merger.is_cold:  # a first commit would come before the device's
            self._publish_composed(always=False)
        return None

    def note_end(self, name: str) -> None:
        """Commit what follows from it that the source *name* has ended, or has become unavailable.

        Raises:
            SegmentError: the segment cannot be written.
        """
        self._merger.note_end(name)
        if not self._merger.is_cold:
            self.publish_due()

    def publish_due(self) -> None:
        """Commit the changes that have become due without an update: a disruption, a source that went quiet.

        Raises:
            SegmentError: the segment cannot be written.
        """
        if not self._is_relaying:
            self._notice()
            self._publish_composed(always=False)
            self._log_time(self._merger.contents)
        self._complaints.say_what_is_due()

    def close(self) -> None:
        """Commit the contents to leave behind, if they differ from the present ones."""
        if self._is_relaying or self._merger.is_cold:
            return
        if self._is_spoilt:
            contents = as_freerunning(self._writer.contents)
        else:
            self._notice()
            self._merger.compose()
            contents = self._merger.final_contents()
        self._write_if_changed(contents)
        self._log_time(contents)

    def _publish_relayed(self, update: BodyUpdate) -> None:
        self._is_relaying = True
        self._write(contents := self._merger.relay(update))
        if self._said_of_time is None:  # later updates may come as fast as a recording can be replayed
            self._log_time(contents)

    def _publish_merged(self, name: str, update: BodyUpdate, epoch: int | None) -> bool:
        self._is_relaying = False
        update = self._believable(name, update)
        self._notice()
        is_of_this_epoch = epoch is None or epoch == self._merger.epoch
        if is_of_this_epoch:
            self._merger.hear(name, update)
        self._publish_composed(always=self._is_sole and is_of_this_epoch)
        if self._accounting.is_due(name) and is_of_this_epoch and name == self._merger.time_source:
            account = self._accounting.of(
                name,
                update,
                self._merger.contents.body,
                self._merger.passed_over(),
                {} if self._agreement is None else self._agreement.contradicting(name),
            )
            if account is not None:
                self._writer.explain(account)
        return is_of_this_epoch

    def _publish_composed(self, *, always: bool) -> None:
        contents = self._merger.compose()
        if self._agreement is not None:
            self._agreement.compare(self._merger.claims())
        if always:
            self._write(contents)
        else:
            self._write_if_changed(contents)
        body = contents.body
        seen = (
            self._merger.time_source,
            body.clock_status,
            body.flags,
            contents.counter_id,
            contents.time_type,
        )
        if seen != self._seen_of_time:  # publish_due() sees other changes once a second
            self._seen_of_time = seen
            self._log_time(contents)

    def _write_if_changed(self, contents: Contents) -> None:
        if contents != self._writer.contents or self._merger.is_cold:
            self._write(contents)

    def _write(self, contents: Contents) -> None:
        source = self._merger.time_source
        if source is not None:  # a time that is held keeps its source
            self._writer.time_source = self._time_sources[source]
        self.seq_count = self._writer.write(
            contents.body, counter_id=contents.counter_id, time_type=contents.time_type
        )
        self._merger.committed()
        self.commits += 1

    def _notice(self) -> None:
        """Observe the world, and let the merger take note of it."""
        broken, stood_still = self._continuity.break_seen(), self._standstill.seen()
        marker = self._ask_for_marker() if self._can_ask else None
        self._merger.notice(Observed(counter_ticks(), broken or stood_still, marker))

    def _ask_for_marker(self) -> tuple[str, int] | None:
        """The source that marks disruptions, and its marker at this moment, if it can be asked.

        This is the only step back on the way from the sources to the page.
        """
        for name, source in self._sources.items():
            if source is not None and (marker := _marker_of(name, source)) is not None:
                return name, marker
            if name == self._merger.marker_source:
                return None  # its updates alone give its marker
        return None

    def _believable(self, name: str, update: BodyUpdate) -> BodyUpdate:
        """*update*, without a time that readers would believe and that cannot be true.

        A page comes from outside, so a wrong one ends nothing. Any other update is the work of the source's own code.
        """
        objection = self._plausible[name].objection(update)
        if objection is None:
            return update
        if objection.is_fault and not update.verbatim:
            raise InvalidUpdateError(name, objection.reason)
        if objection.is_harmless:
            self._complaints.add(name, "time of no use", objection.describe)
            return update
        self._complaints.add(name, "time that cannot be true", lambda: f"{objection.reason} It is not published")
        return without_time(update)

    def _log_time(self, contents: Contents) -> None:
        """Log the source of the time and how good the time is, if either has changed."""
        source = self._merger.time_source
        origin = "the time from before is held" if source is None else f"the time comes from {source}"
        try:
            bounds = bounds_at(contents, counter_ticks(), counter_id=COUNTER_ID)
        except ClockError as exc:
            said, text = type(exc).__name__, f"there is no bounded time: {exc.seen}"
        else:
            said = name_of(contents.body.clock_status)
            text = f"{origin}: +/- {bounds.error_ns / 10**6:.3f} ms, {said}"
        if self._said_of_time != (source, said):
            self._said_of_time = source, said
            self._complaints.say("the time", "change", text)


def _repaired(body: VMClockBody) -> VMClockBody:
    """The void body that replaces the half-written *body*: fields whose change is an event stay as they are.

    Each of these fields is in one word of the page, so it has its value from before the commit, or the new one. With a
    generation of 0 perhaps only its flag was written: it is left out, because readers remember the one before. The
    period says that the body told a time, in a timescale that stays.
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


def _invalidity(update: BodyUpdate) -> str | None:
    """The fault of *update*, in words; None: it is valid."""
    try:
        BodyUpdate.model_validate({field: getattr(update, field) for field in update.model_fields_set})
    except ValidationError as exc:
        return validation_reason(exc)
    except Exception as exc:  # a stranger's code made this BodyUpdate
        return failure(exc)
    return None


def _marking(name: str, source: Source) -> MarksDisruption | None:
    try:
        return source if isinstance(source, MarksDisruption) else None
    except Exception as exc:  # a stranger's code, which may compute its attributes
        raise SourceError(name, f"its attribute disruption_marker failed with {failure(exc)}") from exc


def _time_source(name: str, source: Source) -> TimeSource:
    try:
        rests = source.rests_on_system_clock if isinstance(source, RestsOnSystemClock) else None
    except Exception as exc:  # a stranger's code, as above
        raise SourceError(name, f"its attribute rests_on_system_clock failed with {failure(exc)}") from exc
    if rests not in (True, False, None):
        raise SourceError(name, f"its attribute rests_on_system_clock is {rests!r}, not a bool or None")
    return TimeSource(name, rests)


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
