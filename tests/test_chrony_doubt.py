"""What chronyd measured and may have forgotten: by its reports alone, and as the source publishes it.

Real chronyds that cannot step their clock are in ``test_chrony_rig.py``.
"""

import logging
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import anyio
import pytest

from kit.adjtimex import AdjtimexStandIn
from kit.chrony_source import running, settings, under
from kit.exchanges import NOW_NS, NS, PPM, RAW, estimator, exchange, timex
from kit.fitness import fit
from kit.notes import Notes, contains_realtime
from kit.played_chronyd import PlayedChronyd
from kit.waits import until
from vmclock_async import LeapIndicator
from vmclock_chrony import ChronySource
from vmclock_chrony.doubt import Doubt

pytest.importorskip("pychrony")

MS = 10**6


class Said(NamedTuple):
    """A report, a second after the one before: by how much true time, as chronyd has it, is off an even clock."""

    clock_ns: int
    correction_ns: int
    last_offset_ns: int
    leap: int = 0
    tai: int = 0


def doubt_of(*reports: Said, frequency_ppm: int = 0) -> tuple[int | Fraction, int | Fraction]:
    """What is missing, and what was forgotten, after *reports*."""
    doubt = Doubt()
    for second, said in enumerate(reports):
        # chronyd's clock goes by the counter, less the frequency by which that runs fast.
        even_ns = NOW_NS + round(second * NS * (1 - frequency_ppm * PPM))
        doubt.hear(
            exchange(
                counter=2 * NS * second,
                clock_ns=even_ns + said.clock_ns,
                offset_ns=Fraction(said.correction_ns),
                last_offset_ns=Fraction(said.last_offset_ns),
                frequency_ppm=Fraction(frequency_ppm),
                leap=said.leap,
                kernel=timex(tai_offset_s=said.tai),
            ),
            RAW,
        )
    return doubt.missing_ns, doubt.forgotten_ns


QUIET = Said(0, 0, 0)
BEHIND = Said(0, 0, -5 * NS)
"""The clock is 5 s behind, and chronyd has done nothing about it."""


@pytest.mark.parametrize(
    ("reports", "missing_ns", "forgotten_ns"),
    [
        ([BEHIND], 5 * NS, 0),
        ([BEHIND, BEHIND], 5 * NS, 0),
        ([Said(0, 5 * NS, -5 * NS)], 5 * NS, 0),
        ([Said(0, 0, -5 * NS - 1), BEHIND], 5 * NS, -5 * NS),
        ([QUIET, BEHIND], 5 * NS, -5 * NS),
        ([QUIET, Said(0, 0, 5 * NS)], 5 * NS, 5 * NS),
        ([QUIET, BEHIND, Said(0, 0, -5 * NS - 7), Said(0, 5 * NS, -5 * NS)], 0, 0),
        ([QUIET, BEHIND, Said(0, 5 * NS, 3)], 5 * NS + 3, 0),
        ([QUIET, BEHIND, Said(0, 5 * NS, 3), Said(0, 5 * NS + 2, -2)], 0, 0),
        ([QUIET, Said(0, 5 * NS, -5 * NS)], 0, 0),
        ([QUIET, Said(5 * NS, 0, -5 * NS)], 0, 0),
        ([QUIET, Said(3 * NS, 2 * NS, -5 * NS)], 0, 0),
        ([Said(0, 90 * MS, 1), Said(0, 0, -20 * MS)], 110 * MS, 0),
        ([Said(0, 5 * NS, 1), Said(0, 0, 1)], 5 * NS + 1, -5 * NS),
        ([Said(0, 5 * NS, 1), Said(0, 0, 1), Said(0, 5 * NS, -5 * NS)], 0, 0),
        ([QUIET, Said(5 * NS, 0, 0)], 5 * NS, 5 * NS),
        ([QUIET, Said(5 * NS, 0, 0), Said(5 * NS, -5 * NS, 5 * NS)], 0, 0),
        ([Said(0, 0, 0, leap=1), Said(-NS, 0, 0)], 0, 0),
        ([Said(0, 0, 0, leap=1), Said(-5 * NS, 0, 0)], 5 * NS, -5 * NS),
        ([Said(0, 0, 0, leap=2), Said(-NS, 0, 0)], NS, -NS),
        ([Said(0, 0, 7), Said(37 * NS, 0, 7, tai=37)], 7, 0),
        ([QUIET, Said(400_000, 0, 0)], 0, 0),
    ],
    ids=[
        "before the source was there", "no update since", "corrected before the source was there", "seen after that",
        "forgotten, behind", "forgotten, ahead", "forgotten twice, then corrected", "corrected by an update not seen",
        "and by the next", "corrected", "stepped", "half of each", "an earlier correction as well",
        "makestep by hand", "and then measured afresh", "stepped by another", "and then found out",
        "leap that was announced", "a step on the day of a leap", "a leap of the other sign",
        "another timescale", "a clock that is off by 400 ppm",
    ],
)  # fmt: skip
def test_what_may_be_missing(reports: list[Said], missing_ns: int, forgotten_ns: int) -> None:
    """All that chronyd measured and its time did not move by; or all, where nobody saw whether it did."""
    assert doubt_of(*reports) == (missing_ns, forgotten_ns)


@pytest.mark.parametrize("frequency_ppm", [-400, 30])
def test_rate_of_the_clock_is_no_movement(frequency_ppm: int) -> None:
    """chronyd's time goes by the counter less the frequency: nothing is missing however long a second takes."""
    assert doubt_of(QUIET, Said(0, 2 * MS, -2 * MS), frequency_ppm=frequency_ppm) == (0, 0)


def test_bound_has_what_is_missing_on_top() -> None:
    """And its middle is where chronyd measured true time, if it was seen to forget more than the bound. The rest of the
    bound counts twice then, because chronyd measures to within that what is missing."""
    said: dict[str, Any] = {"root_dispersion_ns": Fraction(MS)}
    usual, wide, elsewhere, near = (
        estimator().measure(exchange(**said), RAW, missing_ns=Fraction(missing), forgotten_ns=Fraction(forgotten))
        for missing, forgotten in ((0, 0), (5 * NS, 0), (5 * NS, -5 * NS), (MS, MS))
    )
    assert usual.time_maxerror_nanosec is not None
    expected_ns = 2 * (usual.time_maxerror_nanosec - 1) + 5 * NS  # 1: rounded up, once
    assert wide.time_maxerror_nanosec == elsewhere.time_maxerror_nanosec
    assert 0 <= (wide.time_maxerror_nanosec or 0) - expected_ns <= 2
    assert near.time_maxerror_nanosec == usual.time_maxerror_nanosec + MS
    assert [update.time_sec for update in (usual, wide, elsewhere, near)] == [
        NOW_NS // NS, NOW_NS // NS, NOW_NS // NS + 5, NOW_NS // NS
    ]  # fmt: skip


def test_slope_does_not_cross_what_comes_back() -> None:
    """Five seconds that were missing come back: they are no rate of the clock's, wide as the bound was before."""
    measuring = estimator()
    for second in range(8):
        is_back = second >= 5
        update = measuring.measure(
            exchange(
                counter=2 * NS * second, clock_ns=NOW_NS + second * NS, offset_ns=Fraction(5 * NS * is_back),
                root_dispersion_ns=Fraction(MS),
            ),
            RAW,
            missing_ns=Fraction(0 if is_back else 5 * NS),
        )  # fmt: skip
    assert update.counter_period_frac_sec is not None
    assert update.counter_period_maxerror_rate_frac_sec is not None
    assert update.counter_period_maxerror_rate_frac_sec / update.counter_period_frac_sec < 1e-4


def test_reference_error_is_added() -> None:
    """What the setting says of chronyd's own reference is in the bound, all of it, and in nothing else."""
    without, with_it = (estimator(reference_error_ns=ns).measure(exchange(leap=1), RAW) for ns in (0, 2 * MS))
    assert without.time_maxerror_nanosec is not None
    assert with_it == without.model_copy(update={"time_maxerror_nanosec": without.time_maxerror_nanosec + 2 * MS})
    assert with_it.leap_indicator == LeapIndicator.PRE_POS


@fit
def test_offset_that_nobody_saw_corrected_is_in_the_bound(
    played: PlayedChronyd, caplog: pytest.LogCaptureFixture
) -> None:
    """From the first report on; until the next update shows that chronyd's time has it. Forgotten, it is named."""
    notes = Notes()
    played.say(last_offset=-5.0)

    async def script() -> None:
        async with running(ChronySource(settings(played.address)), notes):

            async def bound_ns(is_meant: Callable[[int], bool]) -> None:
                seen = len(notes.updates)
                await until(
                    lambda: any(is_meant(update.time_maxerror_nanosec or 0) for update in notes.updates[seen:])
                )

            await until(lambda: len(notes.updates) > 2)
            assert all(5 * NS < (update.time_maxerror_nanosec or 0) < 5.01 * NS for update in notes.updates)
            assert caplog.messages == []
            played.say(last_offset=1e-6)
            await bound_ns(lambda ns: ns < 10 * MS)
            played.say(last_offset=4.0)
            await bound_ns(lambda ns: ns > 4 * NS)
            played.say(last_offset=1e-6)
            await bound_ns(lambda ns: ns < 10 * MS)

    caplog.set_level(logging.WARNING)
    anyio.run(script)
    (message,) = caplog.messages
    assert "4.000000 s away from what chronyd measured last" in message
    assert "remove makestep from chrony.conf, or install chronyd 4.7" in message


@fit
@pytest.mark.parametrize("step_s", [5, 0])
def test_step_that_the_clock_was_seen_to_make_is_no_error(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, played: PlayedChronyd, step_s: int
) -> None:
    """chronyd says that the clock was 5 s ahead: it is no news where CLOCK_REALTIME was set back by that."""
    began_ns = time.time_ns()
    played_clock.play_realtime(began_ns)

    def step() -> None:
        if played.asked == 10:
            played_clock.play_realtime(time.time_ns() - step_s * NS)
            played.say(last_offset=5.0)

    played.before_answer = step
    updates = under(played_clock, run_script, played, count=15, interval=0.01)
    bounds = [update["time_maxerror_nanosec"] for update in updates]
    assert bounds[0] < 100 * MS
    assert (bounds[-1] > 5 * NS) == (step_s == 0)
    assert (max(bounds) < 100 * MS) == (step_s == 5)


# A reference clock


@fit
@pytest.mark.parametrize(
    ("options", "is_refclock", "warned"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"reference_error": 0}, True, False),
        ({"reference_error": "1e-3"}, True, False),
    ],
)
def test_reference_clock_without_an_error_is_warned_of_once(
    played: PlayedChronyd,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    is_refclock: bool,
    warned: bool,
) -> None:
    """chronyd does not know how far that clock may be off: the log names it, and what to set. The setting is in the
    bound; none is needed for a server."""
    notes, again = Notes(), Notes()
    if is_refclock:
        played.follow_reference_clock(b"PHC0")
    source = ChronySource(settings(played.address, **options))

    async def script() -> None:
        async with running(source, notes):
            await until(lambda: len(notes.updates) > 2)
        async with running(source, again):
            await until(lambda: len(again.updates) > 2)

    caplog.set_level(logging.WARNING)
    anyio.run(script)
    assert all(contains_realtime(update) for update in notes.updates[-1:])
    least_ns = Fraction(options.get("reference_error", 0)) * NS
    assert all(least_ns <= (update.time_maxerror_nanosec or 0) < least_ns + 100 * MS for update in notes.updates)
    assert len(caplog.messages) == warned
    if warned:
        assert "reference clock (PHC0)" in caplog.messages[0]
        assert "chrony.reference_error, in seconds" in caplog.messages[0]
        assert "chrony.reference_error_path, a file that says it in nanoseconds" in caplog.messages[0]
        assert "delay" in caplog.messages[0]
