"""Change each sign and drop each term of the formulas once, and check that a test fails: ``make mutants``.

This works on a copy of the tree. A mutant that no test kills, or whose source text does not occur exactly once, is an
error. Arguments, if any: only mutants whose file or description contains one of them.

Two are left out, because no test can tell: ``ticks <= 0`` in ``_rate_between``, which the comparison in ``_rate``
repeats; and the middle of the window in ``pair``, because nobody knows when in the window the clock was read.
"""

# ruff: noqa: E501 (lines of changed source are as long as they are)

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """One change to the text of a file."""

    text: str
    changed: str
    description: str


CHRONY: Final = (
    Mutant("tracking.root_delay_ns / 2,", "Fraction(0),", "drop the root delay"),
    Mutant("tracking.root_delay_ns / 2,", "tracking.root_delay_ns / 4,", "quarter the root delay"),
    Mutant("tracking.root_dispersion_ns,", "-tracking.root_dispersion_ns,", "sign of root dispersion"),
    Mutant("self._understated * exchange.age_ns,", "Fraction(0),", "drop the understated drift"),
    Mutant("self._understated * exchange", "-self._understated * exchange", "sign of the understated drift"),
    Mutant("self._drift - Fraction(chrony", "self._drift + Fraction(chrony", "sign of chronyd's maxclockerror"),
    Mutant("max(Fraction(0), self._drift", "max(Fraction(-1), self._drift", "let the understated drift be negative"),
    Mutant("maxerror * exchange.round_trip_ticks,", "Fraction(0),", "drop the round trip"),
    Mutant("maxerror * exchange.round_trip", "-maxerror * exchange.round_trip", "sign of the round trip"),
    Mutant("Fraction(window_ticks, 2) * rate.ns_per_tick,", "Fraction(0),", "drop the half window"),
    Mutant("Fraction(window_ticks, 2)", "-Fraction(window_ticks, 2)", "sign of the half window"),
    Mutant("max(exchange.before.window_ticks, exchange.after", "min(exchange.before.window_ticks, exchange.after",
           "take the narrower window"),
    Mutant("exchange.disagreement_ns(raw),", "Fraction(0),", "drop the disagreement"),
    Mutant("exchange.disagreement_ns(raw),", "-exchange.disagreement_ns(raw),", "sign of the disagreement"),
    Mutant("Fraction(2),", "Fraction(0),", "drop the two nanoseconds"),
    Mutant("abs(tracking.offset_ns) + ", "0 + ", "drop the wire's error of the offset"),
    Mutant("abs(tracking.offset_ns)", "tracking.offset_ns", "let the wire's error of the offset be negative"),
    Mutant("+ tracking.root_delay_ns + tracking", "+ tracking", "drop the wire's error of the root delay"),
    Mutant("delay_ns + tracking.root_dispersion_ns\n", "delay_ns\n", "drop the wire's error of the root dispersion"),
    Mutant("before.clock_ns + self.tracking.offset_ns", "before.clock_ns - self.tracking.offset_ns", "sign of the offset"),
    Mutant("before.clock_ns + self.tracking.offset_ns", "before.clock_ns", "drop the offset"),
    Mutant("self._reference_error_ns,", "Fraction(0),", "drop the reference's own error"),
    Mutant("(\"stated\", stated_ns,", "(\"stated\", 0,", "drop what a file states of the reference's own error"),
    Mutant("(\"forgotten\", missing_ns,", "(\"forgotten\", Fraction(0),", "drop what is missing"),
    Mutant("(\"doubled\", max_error_ns,", "(\"doubled\", Fraction(0),", "count the rest of the bound once"),
    Mutant("(\"forgotten\", missing_ns,", "(\"forgotten\", -missing_ns,", "sign of what is missing"),
    Mutant("exchange.true_ns - (forgotten_ns", "exchange.true_ns + (forgotten_ns", "sign of what was forgotten"),
    Mutant("if abs(forgotten_ns) > max_error_ns else 0", "", "take noise for what was forgotten"),
    Mutant("min(exchange.tracking.rms_offset_ns, max_error_ns)", "exchange.tracking.rms_offset_ns",
           "let the estimated error exceed the bound"),
    Mutant("(self.before) + self.tracking.offset", "(self.before) - self.tracking.offset", "sign of the age's offset"),
    Mutant("offset_ns - self.tracking.ref_time_ns", "offset_ns + self.tracking.ref_time_ns", "sign of the reference"),
    Mutant("abs(self._utc_ns(self.before)", "(self._utc_ns(self.before)", "let the age be negative"),
    Mutant("clock_ns + (self.timescale.tai_offset_s", "clock_ns - (self.timescale.tai_offset_s",
           "sign of the age's TAI offset"),
    Mutant("self._drift + (tracking", "0 * self._drift + (tracking", "drop the oscillator's drift"),
    Mutant("(tracking.skew_ppm + abs", "(abs", "drop the skew"),
    Mutant("skew_ppm + abs(tracking.residual_freq_ppm)", "skew_ppm", "drop the residual frequency"),
    Mutant("abs(tracking.residual_freq_ppm)", "tracking.residual_freq_ppm", "let the residual frequency be negative"),
    Mutant("        maxerror += rate.error\n", "", "drop the period's own uncertainty"),
    Mutant("(1 - frequency_ppm * PPM)", "(1 + frequency_ppm * PPM)", "sign of the frequency"),
    Mutant("(1 - frequency_ppm * PPM)", "1", "drop the frequency"),
    Mutant("slope.error + abs(slope", "0 * slope.error + abs(slope", "drop the slope's uncertainty"),
    Mutant("error=slope.error + abs(slope.ns_per_tick - by_frequency)", "error=slope.error",
           "drop the slope's distance from the frequency's period"),
    Mutant("slope.ns_per_tick - by_frequency", "slope.ns_per_tick + by_frequency", "sign of that distance"),
    Mutant("raw.error + by_frequency * unknown", "by_frequency * unknown", "drop RAW's uncertainty"),
    Mutant("raw.error + by_frequency * unknown", "raw.error", "drop the kernel's correction"),
    Mutant("max(abs(kernel_ppm), abs(", "max(0, abs(", "drop the kernel's correction alone"),
    Mutant("abs(kernel_ppm + frequency_ppm)", "0", "drop the sum with the frequency"),
    Mutant("abs(kernel_ppm + frequency_ppm)", "abs(kernel_ppm - frequency_ppm)", "sign of the frequency in the sum"),
    Mutant("ENOUGH_FOR_A_SLOPE: Final = 4", "ENOUGH_FOR_A_SLOPE: Final = 3", "take a slope of three"),
    Mutant("clock_ns=round(estimate.true_ns)", "clock_ns=exchange.before.clock_ns", "take the system clock's slope"),
    Mutant("if self._last is not None and estimate.contradicts(self._last)", "if False", "keep a contradicted slope"),
    Mutant("earlier.true_ns - ticks * earlier", "earlier.true_ns + ticks * earlier", "sign of the way carried forward"),
    Mutant("away > self.max_error_ns + earlier.max", "away > earlier.max", "drop the estimate's error in the jump"),
    Mutant("+ earlier.max_error_ns + ticks", "+ ticks", "drop the earlier estimate's error in the jump"),
    Mutant("earlier.max_error_ns + ticks * earlier.maxerror", "earlier.max_error_ns", "drop R in the jump"),
    Mutant("est_error_ns=min(exchange", "est_error_ns=0 * min(exchange", "drop the estimated error"),
    Mutant("Rate(estimate.ns_per_tick, estimate.maxerror)", "Rate(estimate.ns_per_tick, Fraction(0))", "drop R"),
    Mutant("estimate.true_ns + (offset_s", "estimate.true_ns - (offset_s", "sign of the published time's TAI offset"),
    Mutant("+ FUZZ_S\n", "- FUZZ_S\n", "sign of the fuzz"),
    Mutant("limit_s = max(", "limit_s = min(", "take the shorter limit of age"),
    Mutant("- self.round_trip_ticks * raw.ns_per_tick)", "+ self.round_trip_ticks * raw.ns_per_tick)",
           "sign of the round trip in the disagreement"),
    Mutant("* STEP + STEP_NS", "* STEP - STEP_NS", "sign of the step's microsecond"),
    Mutant("tai_offset_sec=offset_s", "tai_offset_sec=offset_s and -offset_s", "sign of the published TAI offset"),
)  # fmt: skip

REFERENCE: Final = (
    Mutant("return max(self._values_ns)", "return min(self._values_ns)", "take the smallest of the values"),
    Mutant("return max(self._values_ns)", "return self._values_ns[-1]", "take the last of the values"),
    Mutant("= int(text)", "= -int(text)", "sign of the value"),
    Mutant("if abs(update_ns - self._update_ns) > _SAME_UPDATE_NS or not", "if not", "keep the largest value for ever"),
    Mutant("abs(update_ns - self._update_ns) > _SAME_UPDATE_NS or not self._values_ns", "True", "count reads for updates"),
    Mutant("abs(update_ns - self._update_ns) > _SAME_UPDATE_NS", "update_ns != self._update_ns",
           "count slews for updates"),
    Mutant("= max(self._values_ns[-1], value_ns)", "= value_ns", "take an update's last value"),
    Mutant("REMEMBERED: Final = 65", "REMEMBERED: Final = 64", "forget an update too early"),
    Mutant("[1-9][0-9]{0,14}", "[0-9]{1,15}", "take a silent zero"),
)  # fmt: skip

AGREEMENT: Final = (
    Mutant("return second.earliest_ns - first.latest_ns", "return second.earliest_ns + first.latest_ns", "sign of the gap"),
    Mutant("return second.latest_ns - first.earliest_ns", "return first.earliest_ns - second.latest_ns", "sign of an earlier gap"),
    Mutant("second.earliest_ns > first.latest_ns", "second.earliest_ns >= first.earliest_ns", "take a later beginning for a gap"),
    Mutant("first.earliest_ns > second.latest_ns", "first.latest_ns > second.latest_ns", "take an earlier end for a gap"),
    Mutant("elif not (first.is_quiet or second.is_quiet):", "else:", "compare quiet sources"),
    Mutant("if gap and not disagreed", "if gap", "count each comparison"),
    Mutant("gap_ns > 0 if name == first else pair.gap_ns < 0", "gap_ns > 0", "see the gap from the first source alone"),
    Mutant("self._give_up(pair, claims)", "pass", "let what cannot be compared disagree"),
)  # fmt: skip

DOUBT: Final = (
    Mutant("(1 - self.exchange.tracking.frequency_ppm * PPM)", "1", "drop the frequency"),
    Mutant("(1 - self.exchange", "(1 + self.exchange", "sign of the frequency"),
    Mutant("- last.exchange.true_ns - ticks", "- last.exchange.true_ns + ticks", "sign of the way carried forward"),
    Mutant("abs(moved_ns + offset_ns)", "abs(moved_ns - offset_ns)", "sign of the last offset"),
    Mutant("abs(moved_ns + offset_ns)", "abs(offset_ns)", "drop the movement"),
    Mutant("abs(moved_ns + offset_ns)", "abs(moved_ns)", "drop the last offset"),
    Mutant("self._forgotten_ns = moved_ns + offset_ns if", "self._forgotten_ns = moved_ns if", "forget what was forgotten"),
    Mutant("if 2 * abs(moved_ns) < abs(offset_ns) else Fraction(0)", "", "take any update for a forgotten one"),
    Mutant("self._forgotten_ns += moved_ns", "self._forgotten_ns -= moved_ns", "sign of a movement by itself"),
    Mutant("self._missing_ns += abs(moved_ns)", "pass", "drop a movement by itself"),
    Mutant("                return  # the announced leap second", "                pass  # the announced leap second", "take a leap for a step"),
    Mutant(" + ticks * raw.ns_per_tick * MAX_KERNEL_PPM * PPM", "", "drop the clock's own rate from its noise"),
)  # fmt: skip

KERNEL: Final = (
    Mutant("\"maxerror\", maxerror_ns,", "\"maxerror\", 0,", "drop maxerror"),
    Mutant("max(reading.before.maxerror_ns", "min(reading.before.maxerror_ns", "take the smaller maxerror"),
    Mutant(" STEP_NS,", " 0,", "drop the 500 us that are yet to be added"),
    Mutant("\"offset\", offset_ns,", "\"offset\", 0,", "drop the offset"),
    Mutant(" half_window_ns,", " 0,", "drop the half window"),
    Mutant("\"assumed error\", assumed_ns,", "\"assumed error\", 0,", "drop the assumed error"),
    Mutant("\"clock\", 2,", "\"clock\", 0,", "drop the two nanoseconds"),
    Mutant("raw.ns_per_tick * _DRIFT + abs", "abs", "drop the 500 ppm"),
    Mutant("+ abs(rate.ns_per_tick - raw.ns_per_tick) + rate", "+ rate", "drop the distance from RAW's period"),
    Mutant("abs(rate.ns_per_tick - raw", "abs(rate.ns_per_tick + raw", "sign of that distance"),
    Mutant("raw.ns_per_tick) + rate.error", "raw.ns_per_tick)", "drop the period's own uncertainty"),
    Mutant("max(abs(before_ns), abs(", "max(0, abs(", "drop the offset of before"),
    Mutant("abs(after_ns)) + cut", "0) + cut", "drop the offset of after"),
    Mutant("abs(after_ns)) + cut_ns", "abs(after_ns))", "drop the offset's rounding"),
    Mutant("window_ticks // 2 + 2", "window_ticks // 2", "drop the half window's two ticks"),
    Mutant("reading.after.esterror_ns + offset", "offset", "drop the estimated error"),
    Mutant("    if lacking_ns > 0:", "    if False:", "let the estimated error exceed the bound"),
    Mutant("clock_ns + (self.timescale.tai_offset_s", "clock_ns - (self.timescale.tai_offset_s", "sign of TAI offset"),
    Mutant("tai_offset_sec=reading.timescale.tai_offset_s",
           "tai_offset_sec=reading.timescale.tai_offset_s and -reading.timescale.tai_offset_s",
           "sign of the published TAI offset"),
    Mutant("rate._replace(error=off)", "rate", "drop R"),
    Mutant("est_error_ns_per_tick=rate.error", "est_error_ns_per_tick=0", "drop the period's estimated error"),
)  # fmt: skip

CLOCKBOUND: Final = (
    Mutant("\"bound\", bound.bound_ns,", "\"bound\", 0,", "drop ClockBound's bound"),
    Mutant("\"growth\", grown_ns,", "\"growth\", 0,", "drop its growth"),
    Mutant("\"pairing\", half_window_ns,", "\"pairing\", 0,", "drop the half window"),
    Mutant("\"clock\", 2,", "\"clock\", 0,", "drop the two nanoseconds"),
    Mutant("reading.after_ns - bound.as_of_ns", "reading.after_ns + bound.as_of_ns", "sign of as_of"),
    Mutant("reading.after_ns - bound", "reading.before_ns - bound", "let the bound grow to before the pairing"),
    Mutant("max(0, reading.after_ns - bound.as_of_ns)", "(reading.after_ns - bound.as_of_ns)", "let the growth be negative"),
    Mutant("window_ticks // 2 + 2", "window_ticks // 2", "drop the half window's two ticks"),
    Mutant("max(clock_error, bound.max_drift_ppb * _PPB)", "clock_error", "drop ClockBound's drift"),
    Mutant("max(clock_error, bound", "max(0, bound", "drop the oscillator's drift"),
    Mutant("raw.ns_per_tick * oscillator + abs", "abs", "drop both drifts"),
    Mutant("+ abs(rate.ns_per_tick - raw.ns_per_tick) + rate", "+ rate", "drop the distance from RAW's period"),
    Mutant("abs(rate.ns_per_tick - raw", "abs(rate.ns_per_tick + raw", "sign of that distance"),
    Mutant("- raw.ns_per_tick) + rate.error", "- raw.ns_per_tick)", "drop the period's own uncertainty"),
    Mutant("clock_ns + (self.timescale.tai_offset_s", "clock_ns - (self.timescale.tai_offset_s", "sign of TAI offset"),
    Mutant("tai_offset_sec=reading.timescale.tai_offset_s",
           "tai_offset_sec=reading.timescale.tai_offset_s and -reading.timescale.tai_offset_s",
           "sign of the published TAI offset"),
    Mutant("rate=rate._replace(error=off)", "rate=rate", "drop R"),
    Mutant("rate.ns_per_tick + off)", "0 * off)", "drop the length of a tick"),
    Mutant("self.utc_ns <= after.realtime_ns + 1000", "self.utc_ns <= after.realtime_ns", "drop what adjtimex cuts"),
    Mutant("least_ns > self._most_ns + _TOLERATED", "least_ns > self._most_ns - _TOLERATED", "sign of what is tolerated"),
    Mutant("most_ns < self._least_ns - _TOLERATED", "most_ns < self._least_ns + _TOLERATED",
           "sign of what is tolerated, back"),
    Mutant("max(self._least_ns, least_ns)", "least_ns", "forget the narrow readings, least"),
    Mutant("min(self._most_ns, most_ns)", "most_ns", "forget the narrow readings, most"),
    Mutant("reading.utc_ns - reading.after_ns, reading", "reading.utc_ns + reading.after_ns, reading", "sign of the clock"),
)  # fmt: skip

WIDENING: Final = (
    Mutant("max(instant.before_ns, instant.after_ns) - instant", "instant.before_ns - instant", "take the clock before, fast"),
    Mutant("max(instant.before_ns, instant.after_ns) - instant", "instant.after_ns - instant", "take the clock after, fast"),
    Mutant("latest_ns - min(instant.before_ns, instant.after_ns)", "latest_ns - instant.before_ns", "take the clock before, slow"),
    Mutant("latest_ns - min(instant.before_ns, instant.after_ns)", "latest_ns - instant.after_ns", "take the clock after, slow"),
    Mutant("after_ns) - instant.interval.earliest_ns", "after_ns) + instant.interval.earliest_ns", "sign of the earliest"),
    Mutant("latest_ns - min(", "latest_ns + min(", "sign of the clock, slow"),
    Mutant("max(fast_ns, slow_ns)", "fast_ns", "drop the later end"),
    Mutant("max(fast_ns, slow_ns)", "slow_ns", "drop the earlier end"),
    Mutant("max(fast_ns, slow_ns)", "min(fast_ns, slow_ns)", "take the nearer end"),
    Mutant("abs(self.after_ns - self", "(self.after_ns - self", "let a clock that is set back have the tightest window"),
    Mutant(" + math.ceil(Fraction(lag_ns * drift_ppb, 10**9))", "", "drop the lag"),
    Mutant("math.ceil(Fraction(lag", "math.floor(Fraction(lag", "round the lag down"),
    Mutant(" + _CLIENT_NS", "", "drop the client's rounding"),
    Mutant("Fraction(slew_ppb, 10**9) + max", "max", "drop the slew"),
    Mutant(" + max(_OSCILLATOR, counter_off)", "", "drop the oscillator"),
    Mutant("max(_OSCILLATOR, counter_off)", "_OSCILLATOR", "drop R"),
    Mutant("max(_OSCILLATOR, counter_off)", "counter_off", "drop the 500 ppm"),
    Mutant("off / (1 - off)", "off", "take true time for the slowed clock's"),
    Mutant("off / (1 - off)", "off / (1 + off)", "take a clock that is slewed up for the worst"),
    Mutant("math.ceil(off", "math.floor(off", "round the rate down"),
    Mutant("if drift_ppb < _END_PPB", "if drift_ppb <= _END_PPB", "let the rate be what clients refuse"),
    Mutant("min(LONGEST_USE_NS, max", "min(10**15, max", "drop the longest use"),
    Mutant("max(0, math.floor(left", "(math.floor(left", "let the use end before it begins"),
    Mutant("left_ns * _SLOWEST_MONOTONIC", "left_ns", "take CLOCK_MONOTONIC for true time"),
    Mutant("as_of_ns + min(", "min(", "drop as_of"),
    Mutant("return _LEAP_NS if begins_ns", "return 0 if begins_ns", "drop the leap second"),
    Mutant("month_end_ns - _LEAP_NS - 2", "month_end_ns - 2", "take a negative leap second for one at the month's end"),
    Mutant("- 2 * LONGEST_USE_NS", "- LONGEST_USE_NS", "take a slow clock's minute for a minute"),
    Mutant("- 2 * LONGEST_USE_NS", "+ 2 * LONGEST_USE_NS", "sign of the longest use"),
    Mutant("begins_ns <= interval", "begins_ns < interval", "begin a nanosecond late"),
    Mutant("latest_ns < month_end_ns + _LEAP_NS else", "latest_ns < month_end_ns else", "end with the month"),
    Mutant("latest_ns < month_end_ns + _LEAP_NS else", "latest_ns <= month_end_ns + _LEAP_NS else", "end a nanosecond late"),
)  # fmt: skip

NTP: Final = (
    Mutant("self._root_delay_ns / 2,", "Fraction(0),", "drop the root delay"),
    Mutant("self._root_delay_ns / 2,", "self._root_delay_ns / 4,", "quarter the root delay"),
    Mutant("self._root_dispersion_ns, \"", "Fraction(0), \"", "drop the root dispersion"),
    Mutant("max(Fraction(0), self._ways_ns(rate)) / 2,", "Fraction(0),", "drop the round trip"),
    Mutant("max(Fraction(0), self._ways_ns(rate)) / 2,", "max(Fraction(0), self._ways_ns(rate)) / 4,",
           "quarter the round trip"),
    Mutant("max(Fraction(0), self._ways_ns(rate))", "self._ways_ns(rate)", "let the round trip be negative"),
    Mutant("(rate.ns_per_tick + rate.error) - self._held_ns", "(rate.ns_per_tick + rate.error)", "drop what was held"),
    Mutant("(rate.ns_per_tick + rate.error) - self", "(rate.ns_per_tick + rate.error) + self", "sign of what was held"),
    Mutant("(rate.ns_per_tick + rate.error) - self", "rate.ns_per_tick - self", "drop R in the round trip"),
    Mutant("(rate.ns_per_tick + rate.error) - self", "(rate.ns_per_tick - rate.error) - self", "sign of R in the round trip"),
    Mutant("self._precision_ns, \"", "Fraction(0), \"", "drop the precision"),
    Mutant("STATED_UNIT_NS * 3 / 2,", "Fraction(0),", "drop the rounding by the server"),
    Mutant("STATED_UNIT_NS * 3 / 2,", "STATED_UNIT_NS,", "drop the rounding of half the root delay"),
    Mutant("2 * rate.ns_per_tick + 1\n", "Fraction(1)\n", "drop the two ticks"),
    Mutant("2 * rate.ns_per_tick + 1\n", "2 * rate.ns_per_tick\n", "drop the nanosecond"),
    Mutant("abs(ticks_between(self.counter_ticks, counter_ticks)) * rate.error,", "Fraction(0),", "drop the drift"),
    Mutant("abs(ticks_between(self.counter_ticks, counter_ticks)) * rate.error,",
           "ticks_between(self.counter_ticks, counter_ticks) * rate.error,", "let the drift be negative"),
    Mutant("-(self._precision_ns + _digits", "-(_digits", "forgive no precision"),
    Mutant("-(self._precision_ns + _digits_ns(rate))", "-self._precision_ns", "forgive no last digit"),
    Mutant("ways_ns < -(self", "ways_ns < (self", "sign of the forgiven precision"),
    Mutant("(answer.receive_ns + answer.transmit_ns) / 2", "answer.receive_ns", "take the time of the request"),
    Mutant("(answer.receive_ns + answer.transmit_ns) / 2", "answer.transmit_ns", "take the time of the answer"),
    Mutant("exchange.sent_ticks + self._round_trip_ticks // 2", "exchange.sent_ticks", "take the counter before"),
    Mutant("sent_ticks + self._round", "sent_ticks - self._round", "sign of half the round trip"),
    Mutant("counter_ticks, self.true_ns + ticks * rate.ns_per_tick, error_ns", "counter_ticks, self.true_ns, error_ns",
           "drop the way carried forward"),
    Mutant("self.true_ns + ticks * rate.ns_per_tick, error_ns", "self.true_ns - ticks * rate.ns_per_tick, error_ns",
           "sign of the way carried forward"),
    Mutant("self.true_ns + ticks * rate.ns_per_tick, self", "self.true_ns, self", "drop a moment's way carried forward"),
    Mutant("self.error_ns + abs(ticks) * rate.error", "self.error_ns", "drop a moment's drift"),
    Mutant("self.error_ns + other.error_ns", "self.error_ns", "drop the other's error in a contradiction"),
    Mutant("> self.error_ns + other", "> other", "drop the own error in a contradiction"),
    Mutant("math.floor(self.true_ns - self", "math.ceil(self.true_ns - self", "round the earliest inward"),
    Mutant("math.ceil(self.true_ns + self", "math.floor(self.true_ns + self", "round the latest inward"),
    Mutant("math.floor(self.true_ns - self.error_ns)", "math.floor(self.true_ns)", "drop the error before"),
    Mutant("math.ceil(self.true_ns + self.error_ns)", "math.ceil(self.true_ns)", "drop the error after"),
    Mutant("raw.error + raw.ns_per_tick * NOMINAL", "raw.ns_per_tick * NOMINAL", "drop RAW's uncertainty"),
    Mutant("raw.error + raw.ns_per_tick * NOMINAL", "raw.error", "drop the 500 ppm"),
    Mutant("measured.error + measured.ns_per_tick * WANDER", "measured.ns_per_tick * WANDER",
           "drop the measurement's uncertainty"),
    Mutant("measured.error + measured.ns_per_tick * WANDER", "measured.error", "drop the 50 ppm"),
    Mutant("return min(wandering", "return max(wandering", "take the larger R"),
    Mutant("(earlier.error_ns + later.error_ns)", "later.error_ns", "drop the earlier error of a rate"),
    Mutant("(earlier.error_ns + later.error_ns)", "earlier.error_ns", "drop the later error of a rate"),
    Mutant("found.error < self._best", "found.error > self._best", "take the worst pair"),
    Mutant("            self._moments.clear()\n            self._best = None\n", "            pass\n", "keep a contradicted rate"),
    Mutant("                self._best = None  # the new", "                pass  # the new", "keep a pair for ever"),
)  # fmt: skip

NTP_VOTES: Final = (
    Mutant("(voters - 1) // 2", "voters // 2", "take half for a majority"),
    Mutant("(voters - 1) // 2", "(voters - 1) // 3", "let fewer be wrong"),
    Mutant("        voters += silent\n", "        pass\n", "let silent servers have no vote"),
    Mutant("len(intervals), 0\n", "len(intervals), 1\n", "believe either of two"),
    Mutant("len(intervals) - wrong  #", "voters - wrong  #", "let none that is right be silent"),
    Mutant("< voters - wrong:", "< len(intervals) - wrong:", "let those decide that answer first"),
    Mutant("        min(ns for ns", "        max(ns for ns", "take the last beginning"),
    Mutant("        max(ns for ns", "        min(ns for ns", "take the first end"),
    Mutant("self.false - choice.right |", "self.false |", "never forgive"),
    Mutant(" if name not in self.false}", "}", "believe a liar that is left alone"),
    Mutant("min(one.earliest_ns", "max(one.earliest_ns", "take the later beginning of two that are doubted"),
    Mutant("max(one.latest_ns", "min(one.latest_ns", "take the earlier end of two that are doubted"),
    Mutant("_doubted_votes = CALM_VOTES", "_doubted_votes = 1", "forget a contradiction"),
    Mutant("        elif self._doubted_votes:\n", "        elif False:\n", "believe one of two that are doubted alone"),
)  # fmt: skip

NTP_LEAP: Final = (
    Mutant("self._at_ns - _NEAR_NS", "self._at_ns + _NEAR_NS", "sign of the time before a leap second"),
    Mutant("self._at_ns + _NEAR_NS", "self._at_ns - 3 * _NEAR_NS", "sign of the time after a leap second"),
    Mutant("now.year + now.month // 12", "now.year", "drop the year's end"),
    Mutant("now.month % 12 + 1", "now.month", "drop the month's end"),
)  # fmt: skip

NTP_PACKET: Final = (
    Mutant("self.root_delay_ns / 2 + self.root_d", "self.root_d", "drop the root delay of the distance"),
    Mutant("/ 2 + self.root_dispersion_ns + self", "/ 2 + self", "drop the root dispersion of the distance"),
    Mutant("_dispersion_ns + self.precision_ns\n", "_dispersion_ns\n", "drop the precision of the distance"),
    Mutant("self.transmit_ns - self.receive_ns", "self.receive_ns - self.transmit_ns", "sign of what was held"),
    Mutant("self.transmit_ns - utc_ns(self.reference)", "utc_ns(self.reference) - self.transmit_ns", "sign of the age"),
    Mutant("_PIVOT_S * 10**9 + Fraction", "Fraction", "drop the pivot"),
    Mutant("(_NTP_EPOCH_S + _PIVOT_S << 32)", "(_NTP_EPOCH_S << 32)", "count from 1970"),
    Mutant("(_NTP_EPOCH_S + _PIVOT_S << 32)", "(_PIVOT_S - _NTP_EPOCH_S << 32)", "sign of the epoch"),
    Mutant("self.root_delay * 10**9, 2**16", "self.root_delay * 10**9, 2**15", "unit of the root delay"),
    Mutant("self.root_dispersion * 10**9, 2**16", "self.root_dispersion * 10**9, 2**15", "unit of the root dispersion"),
)  # fmt: skip

PTP: Final = (
    Mutant("measurement.claimed_ns or 0, \"what", "0, \"what", "drop the device's claim"),
    Mutant("measurement.assumed_ns or 0, \"what", "0, \"what", "drop the assumed error"),
    Mutant("\"pairing\", half_window_ns,", "\"pairing\", 0,", "drop the half window"),
    Mutant("\"clock\", 2,", "\"clock\", 0,", "drop the two nanoseconds"),
    Mutant("window_ticks // 2 + 2", "window_ticks // 2", "drop the half window's two ticks"),
    Mutant("rate.ns_per_tick + rate.error\n", "rate.ns_per_tick\n", "take the middle tick for the longest"),
    Mutant("(self.claimed_ns or 0) + (self", "(self", "drop the claim from the clock's error"),
    Mutant("(self.claimed_ns or 0) + (self.assumed_ns or 0)", "(self.claimed_ns or 0)",
           "drop the assumption from the clock's error"),
    Mutant("if self.claimed_ns is None and self.assumed_ns is None", "if False", "let an unknown error count as zero"),
    Mutant("clock_ns + offset_s * 10**9", "clock_ns - offset_s * 10**9", "sign of the TAI offset"),
    Mutant("if self.time_type == TimeType.TAI else 0", "", "add the TAI offset to a clock in UTC"),
    Mutant("tai_offset_sec=self.tai_offset_s", "tai_offset_sec=self.tai_offset_s and -self.tai_offset_s",
           "sign of the published TAI offset"),
    Mutant("if known_s is None and time_type == TimeType.TAI else", "if known_s is None else",
           "take the setting's offset for a clock in UTC"),
    Mutant("raw.error + raw.ns_per_tick * _NOMINAL", "raw.ns_per_tick * _NOMINAL", "drop RAW's uncertainty"),
    Mutant("raw.error + raw.ns_per_tick * _NOMINAL", "raw.error", "drop the 500 ppm"),
    Mutant("slope.error + slope.ns_per_tick * _OSC", "slope.ns_per_tick * _OSC", "drop the slope's uncertainty"),
    Mutant(" + slope.ns_per_tick * _OSCILLATOR", "", "drop the 50 ppm"),
    Mutant(" + Fraction(ends_ns, ticks)", "", "drop the clock's errors at the ends of the slope"),
    Mutant("(first.clock_error_ns or 0) + (last", "(last", "drop the clock's error at the first end"),
    Mutant("(first.clock_error_ns or 0) + (last.clock_error_ns or 0)", "(first.clock_error_ns or 0)",
           "drop the clock's error at the last end"),
    Mutant("by_slope.error > nominal.error", "by_slope.error < nominal.error", "take the wider of the two rates"),
    Mutant("if self.stepped_ns or measurement.clock_error_ns is None:", "if measurement.clock_error_ns is None:",
           "keep a slope over a step"),
    Mutant("if self.stepped_ns or measurement.clock_error_ns is None:", "if self.stepped_ns:",
           "keep a slope over an unknown error"),
    Mutant("last.pairing.clock_ns - expected_ns", "last.pairing.clock_ns + expected_ns", "sign of the time expected"),
    Mutant("_FASTEST_SLEW + windows * raw.ns_per_tick", "_FASTEST_SLEW", "drop the windows from a step"),
    Mutant("abs(expected_ns) * _FASTEST_SLEW + windows", "windows", "drop the slew from a step"),
    Mutant("self._measurements[1 - Slope.LENGTH :]", "self._measurements", "keep every reading as the first end"),
    Mutant("rate=rate,", "rate=rate._replace(error=Fraction(0)),", "drop R"),
    Mutant("_AROUND_LEAP_NS <= self.utc_ns", "0 <= self.utc_ns", "measure right after a leap"),
    Mutant("< _DAY_NS - _AROUND_LEAP_NS", "< _DAY_NS", "measure right before a leap"),
    Mutant("self.timex is None or leap_indicator(self.timex) == LeapIndicator.NONE", "self.timex is None",
           "measure at no midnight"),
)  # fmt: skip
CLAIM: Final = (
    Mutant("max(claimed_ns, claimed_before_ns or 0)", "claimed_ns", "drop the claim from before the reading"),
    Mutant("max(claimed_ns, claimed_before_ns or 0)", "claimed_before_ns or 0", "drop that from after it"),
    Mutant("return path in self._claiming", "return False", "let the assumption stand in for a claim"),
    Mutant("if measurement.is_at_leap or self", "if self", "measure at a leap second"),
    Mutant("        self._require_time_on_page(clock)\n        claimed", "        claimed", "drop the page's status before"),
    Mutant("claimed_before_ns or 0)\n        self._require_time_on_page(clock)", "claimed_before_ns or 0)",
           "drop the page's status after"),
)  # fmt: skip

CROSSING: Final = (
    Mutant("Fraction(max(before.window_ticks, after.window_ticks), 2) + 1", "Fraction(1)", "drop the half window"),
    Mutant("max(before.window_ticks, after", "min(before.window_ticks, after", "take the narrower window"),
    Mutant("after.window_ticks), 2) + 1", "after.window_ticks), 2)", "drop the tick of the middle's rounding"),
    Mutant("_LOST_NS * ticks_per_ns + ticks", "ticks", "drop the lost nanoseconds"),
    Mutant(" + ticks * _BENT", "", "drop the bend"),
    Mutant("* ticks_per_ns - off_ticks", "* ticks_per_ns + off_ticks", "sign of the error at the first end"),
    Mutant("* ticks_per_ns + off_ticks", "* ticks_per_ns - off_ticks", "sign of the error at the last end"),
    Mutant("crossing.raw_before_ns - before.clock_ns", "crossing.raw_before_ns + before.clock_ns", "sign of the way"),
    Mutant("crossing.raw_after_ns - before.clock_ns", "crossing.raw_before_ns - before.clock_ns",
           "drop the time that the device took"),
    Mutant("before.counter_ticks + math", "before.counter_ticks - math", "sign of the ticks since the first pairing"),
    Mutant("before.clock_ns <= crossing", "0 <= crossing", "take a crossing of before the pairings"),
    Mutant("crossing.raw_after_ns <= after.clock_ns", "crossing.raw_after_ns < 2**64", "take one of after the pairings"),
    Mutant("raw_before_ns <= crossing.raw_after", "raw_before_ns < 2**64 and 0 <= crossing.raw_after",
           "take a clock that went back"),
    Mutant("math.ceil(last - first)", "math.floor(last - first)", "round the window down"),
)  # fmt: skip

RECKONING: Final = (
    Mutant("TimeType.TAI else 0\n    low", "TimeType.TAI and False else 0\n    low", "drop the TAI offset"),
    Mutant("time.low + offset_s", "time.low - offset_s", "sign of the TAI offset"),
    Mutant("time.high + offset_s", "time.high - offset_s", "sign of the TAI offset, latest"),
    Mutant("low=reference + elapsed", "low=reference - elapsed", "sign of the time elapsed"),
    Mutant("high=reference - (-product >> k)", "high=reference + elapsed", "round the latest down"),
    Mutant("time_maxerror_nanosec + _grown_ns(d", "time_maxerror_nanosec + 0 * _grown_ns(d", "drop the bound's growth"),
    Mutant("maxerror_ns=body.time_maxerror_nanosec + ", "maxerror_ns=", "drop the reference's bound"),
    Mutant("time_esterror_nanosec + _grown_ns(d", "time_esterror_nanosec + 0 * _grown_ns(d", "drop esterror's growth"),
    Mutant("-(-abs(ticks) * rate", "-(-ticks * rate", "let the bound shrink before the reference"),
    Mutant("return -(-abs(ticks) * rate * 10**9 >> 64 + shift)", "return abs(ticks) * rate * 10**9 >> 64 + shift",
           "round the growth down"),
    Mutant("(low * 10**9 >> 64) - time.maxerror", "(low * 10**9 >> 64) + time.maxerror", "sign of the earliest's bound"),
    Mutant(">> 64) + time.maxerror_ns\n", ">> 64) - time.maxerror_ns\n", "sign of the latest's bound"),
    Mutant("latest = -(-high * 10**9 >> 64)", "latest = (high * 10**9 >> 64)", "round the latest nanosecond down"),
    Mutant("< -units(max_past_s)", "< units(max_past_s)", "sign of the longest past"),
    Mutant("case LeapIndicator.POS:\n            return earliest - 10**9", "case LeapIndicator.POS:\n            return earliest",
           "drop the leap second in progress"),
    Mutant("case LeapIndicator.POS:\n            return earliest - 10**9, latest + 10**9",
           "case LeapIndicator.POS:\n            return earliest - 10**9, latest", "drop the first pass"),
    Mutant("LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s) - 10**9",
           "LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s)", "drop the second pass"),
    Mutant("LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s):\n            return earliest - 10**9",
           "LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s):\n            return earliest + 10**9",
           "sign of the second inserted"),
    Mutant("PRE_NEG if latest >= _month_end_ns(reference_utc_s) - 10**9:\n            return earliest, latest + 10**9",
           "PRE_NEG if latest >= _month_end_ns(reference_utc_s) - 10**9:\n            return earliest, latest - 10**9",
           "sign of the second left out"),
    Mutant("PRE_NEG if latest >= _month_end_ns(reference_utc_s) - 10**9:",
           "PRE_NEG if latest >= _month_end_ns(reference_utc_s):", "leap at the month's end"),
    Mutant("_month_start_ns(reference_utc_s):\n            return earliest, latest + 10**9",
           "_month_start_ns(reference_utc_s):\n            return earliest, latest", "drop the second inserted before"),
    Mutant("_month_start_ns(reference_utc_s):\n            return earliest - 10**9",
           "_month_start_ns(reference_utc_s):\n            return earliest", "drop the second left out before"),
    Mutant("latest, body.time_sec + offset_s)", "latest, body.time_sec - offset_s)", "sign of the TAI offset at the month's end"),
)  # fmt: skip

NESTING: Final = (
    Mutant("max(f.earliest_ns, c.earliest_ns)", "f.earliest_ns", "let the earliest go back"),
    Mutant("min(f.latest_ns, c.latest_ns)", "f.latest_ns", "let the latest go on"),
    Mutant("c.earliest_ns - TOLERANCE_NS", "c.earliest_ns + TOLERANCE_NS", "sign of the tolerance, earliest"),
    Mutant("c.latest_ns + TOLERANCE_NS", "c.latest_ns - TOLERANCE_NS", "sign of the tolerance, latest"),
    Mutant("if not promised.earliest_ns <= plain", "if False and not promised.earliest_ns <= plain",
           "never see a contradiction"),
    Mutant("both.midpoint_ns - offset_s * 10**9", "both.midpoint_ns + offset_s * 10**9", "sign of the TAI offset"),
    Mutant("both.midpoint_ns - offset_s * 10**9", "both.midpoint_ns", "drop the TAI offset"),
    Mutant("abs(both.midpoint_ns - f.midpoint_ns)", "abs(both.midpoint_ns + f.midpoint_ns)", "sign of the shift"),
    Mutant(".esterror_ns + shifted_ns", ".esterror_ns", "drop the shift from the estimated error"),
    Mutant('["time_maxerror_nanosec"] = both.error_ns', '["time_maxerror_nanosec"] = both.error_ns - 1', "bound too small"),
    Mutant('    draft.values["counter_value"] = counter\n', "", "keep the measurement's counter value"),
)  # fmt: skip

QUIET: Final = (
    Mutant("GRACE_S: Final = 5", "GRACE_S: Final = 50", "wait longer"),
    Mutant("VOID_AFTER_S: Final = 1000", "VOID_AFTER_S: Final = 2000", "believe longer"),
    Mutant("_RESET: Final = -UNITS_PER_SECOND", "_RESET: Final = UNITS_PER_SECOND", "sign of the longest past"),
    Mutant("        draft.void()\n", "        pass\n", "drop the void"),
    Mutant("        draft.run_free()\n", "        pass\n", "drop the grace"),
    Mutant("else _OLDEST", "else 0", "take a counter that was reset for a new time"),
)  # fmt: skip

DRAFT: Final = (
    Mutant("~BOUND_FLAGS", "~0", "keep the bound's flags"),
    Mutant('self.values["clock_status"] = ClockStatus.UNKNOWN', "pass", "keep the status"),
    Mutant('self.values["clock_status"] = ClockStatus.FREERUNNING', "pass", "stay synchronized"),
    Mutant("self.flags & ~mask | int", "self.flags | int", "never clear a flag"),
)  # fmt: skip

DISRUPTION: Final = (
    Mutant("self._base + self._own * OWN", "self._base - self._own * OWN", "sign of n"),
    Mutant("self._own * OWN_DISRUPTION", "0", "drop n"),
    Mutant("(published - marker) // OWN_DISRUPTION\n", "(marker - published) // OWN_DISRUPTION\n", "sign of n at a warm start"),
    Mutant("(published - marker) // OWN_DISRUPTION + 1", "(published - marker) // OWN_DISRUPTION", "repeat a marker"),
    Mutant("        self.epoch += 1\n        return True", "        return True", "drop the epoch of a new marker"),
    Mutant("        self._own += 1\n        self.epoch += 1\n", "        self._own += 1\n", "drop the epoch of a suspend"),
    Mutant("        if first and self.cold:\n            return False\n", "", "take a cold start for a disruption"),
)  # fmt: skip

MERGING: Final = (
    Mutant("        self.contents = voided(self.contents)\n        self._promise = self._time = None\n", "        self._promise = self._time = None\n",
           "drop the void on disruption"),
    Mutant("        self._choice.void_all_but(None)\n", "", "keep the measurements on disruption"),
)  # fmt: skip

STEERING: Final = (
    Mutant("raw.error * faster + raw.ns_per_tick * _PPB", "raw.error * faster", "drop the frequency's rounding"),
    Mutant("raw.error * faster + raw", "raw", "drop RAW's uncertainty"),
    Mutant("raw.error + raw.ns_per_tick * LARGEST_CORRECTION_PPB * _PPB", "raw.error", "drop an unknown correction"),
    Mutant("raw.error + raw.ns_per_tick * LARGEST", "raw.ns_per_tick * LARGEST", "drop RAW's uncertainty beside it"),
    Mutant("expected_ns * LARGEST_CORRECTION_PPB * _PPB + windows", "windows", "take a slew for a step"),
    Mutant("1 + frequency_ppb * _PPB", "1 - frequency_ppb * _PPB", "sign of the kernel's correction of the rate"),
)  # fmt: skip

TIMEBASE: Final = (
    Mutant("(later - earlier + 2**63)", "(earlier - later + 2**63)", "sign of the ticks"),
    Mutant("/ 10**9) + 1\n", "/ 10**9)\n", "drop the period's rounding"),
    Mutant("(ticks_off * ns_per_tick + ns_off + 2)", "(ns_off + 2)", "drop the windows"),
    Mutant("(ticks_off * ns_per_tick + ns_off + 2)", "(ticks_off * ns_per_tick + 2)", "drop the distance"),
    Mutant("ns_per_tick + ns_off + 2)", "ns_per_tick + ns_off)", "drop the clocks' last nanoseconds"),
    Mutant("    ticks_off += 2\n", "", "drop the ticks' rounding"),
    Mutant("/ (ticks - ticks_off)", "/ (ticks + ticks_off)", "sign of the baseline's windows"),
    Mutant("Fraction(first.window_ticks + last.window_ticks, 2)\n    if", "Fraction(first.window_ticks, 2)\n    if",
           "drop a window of the calibration's"),
    Mutant("Fraction(first.window_ticks + last.window_ticks, 2), 4", "Fraction(first.window_ticks, 2), 4",
           "drop a window of the slope's"),
    Mutant("4 * farthest", "0 * farthest", "drop the slope's distances"),
    Mutant("n * sum(x * y for x, y in zip(ticks, times, strict=True)) - sum_x",
           "n * sum(x * y for x, y in zip(ticks, times, strict=True)) + sum_x", "sign in the slope's numerator"),
    Mutant("sum(x * x for x in ticks) - sum_x**2", "sum(x * x for x in ticks) + sum_x**2", "sign in its denominator"),
    Mutant("abs(n * y - sum_y - slope", "abs(n * y - sum_y + slope", "sign in the slope's distances"),
    Mutant("-timex.tai_offset_s)", "timex.tai_offset_s)", "sign of the TAI offset"),
)  # fmt: skip

MEASUREMENT: Final = (
    Mutant("math.floor(time_ns", "math.ceil(time_ns", "round the reference up"),
    Mutant("utc_ns - tai_offset_sec * 10**9", "utc_ns + tai_offset_sec * 10**9", "sign of the TAI offset"),
    Mutant("error_ns + cut_ns", "error_ns", "drop what the reference's rounding takes"),
    Mutant("error_ns + cut_ns", "error_ns - cut_ns", "sign of what the reference's rounding takes"),
    Mutant("math.ceil(error_ns)", "math.floor(error_ns)", "round the bound down"),
    Mutant("rate.error + rate.ns_per_tick * drift", "rate.ns_per_tick * drift", "drop the rate's own error"),
    Mutant("rate.error + rate.ns_per_tick * drift", "rate.error", "drop the drift"),
    Mutant("rate.ns_per_tick * drift", "drift", "take the drift for nanoseconds a tick"),
)  # fmt: skip

CONTINUITY: Final = (
    Mutant("        if least_ns > self._asleep_least_ns:\n", "        if True:\n", "forget what was known, least"),
    Mutant("        if most_ns < self._asleep_most_ns:\n", "        if True:\n", "forget what was known, most"),
    Mutant("least_ns - self._asleep_most_ns if", "least_ns + self._asleep_most_ns if", "sign of the time slept"),
    Mutant("else most_ns - self._asleep_least_ns", "else most_ns + self._asleep_least_ns", "sign of a time slept that went back"),
    Mutant("            self._asleep_least_ns, self._asleep_most_ns = least_ns, most_ns\n", "", "tell of a suspend for ever"),
    Mutant("-_OFF_NS <= (before_ticks", "-10**30 <= (before_ticks", "overlook a counter that stayed behind"),
    Mutant("- elapsed_ns <= _OFF_NS\n", "- elapsed_ns <= 10**30\n", "overlook a counter that went ahead"),
    Mutant("_signed(before_ticks - last_after) /", "_signed(after_ticks - last_before) /", "take a slow look for a break"),
    Mutant("_OFF_NS + abs(elapsed_ns) *", "_OFF_NS + 0 *", "let the rate not wander"),
    Mutant("                self.begin(Clocks(*now))", "                pass", "keep the rate after a break"),
    Mutant("> 2 * self._first.window_ticks + 1:\n", "> 2**64:\n", "measure the rate from an interrupted look"),
    Mutant("        parted_ns = self._agreement.parted_ns(clocks)\n", "        parted_ns = 0\n", "do not compare the counter with the clock"),
)  # fmt: skip
STANDSTILL: Final = (
    Mutant("since_ns > self._latest_ns and", "since_ns >= self._latest_ns and", "take the latest tick for late"),
    Mutant("busy_ns < since_ns // 2", "busy_ns <= since_ns", "take a busy process for a stopped one"),
    Mutant("stood_ns, self._stood_ns = self._stood_ns, 0", "stood_ns = self._stood_ns", "tell of a standstill for ever"),
    Mutant("self._stood_ns += since_ns", "self._stood_ns = 0", "overlook a late tick"),
)  # fmt: skip
GENERATION: Final = (
    Mutant("        self._is_due = False\n        if self._announces:", "        if self._announces:", "draw again and again"),
    Mutant("if self._is_due or (self._announces and self._last is None):", "if self._announces and self._last is None:", "draw no other one"),
    Mutant("if self._is_due or (self._announces and self._last is None):", "if self._is_due or self._announces:", "draw another one for each commit"),
    Mutant("if not any(self._announces.values()):", "if True:", "count a device's marker beside an announcement"),
    Mutant("if not any(self._announces.values()):", "if False:", "overlook a device's marker"),
    Mutant("        if self._announces:\n", "        if True:\n", "keep the counter of a run before"),
    Mutant("if is_same and reporter", "if reporter", "take a late report for one of the same restore"),
    Mutant("reporter not in self._heard_from:", "True:", "take a second report of one source for the same restore"),
    Mutant("        self._heard_from.clear()\n        self._heard_from.add(reporter)", "        self._heard_from.add(reporter)", "remember who reported the restore before"),
    Mutant('"""Note a disruption that nobody reported: a report after it is not of a restore before it."""\n        self._heard_from.clear()', '"""..."""', "overlook a disruption between two reports"),
    Mutant("OWN_GENERATION + int", "int", "draw one that looks like a device's"),
)  # fmt: skip
RESTORE: Final = (
    Mutant("        return generation_before != generation_after\n", "        return True\n", "take one counter for two"),
    Mutant("is_own_generation(generation_before) == is_own_generation(", "True or is_own_generation(", "compare counters of two origins"),
    Mutant("        return marker_before // OWN_DISRUPTION < marker_after // OWN_DISRUPTION\n", "        return marker_before != marker_after\n", "take a device that appears for a restore"),
    Mutant("    return marker_before != marker_after\n", "    return True\n", "take a counter that appears for a restore"),
)  # fmt: skip

RECKON: Final = (
    Mutant("elapsed >= (past", "elapsed > (past", "let an age be exactly the limit"),
    Mutant("past ? limits->before : limits->after", "limits->after", "let a reading be as early as it may be late"),
    Mutant("past ? limits->before : limits->after", "limits->before", "let a reading be as late as it may be early"),
    Mutant("past ? -(uint64_t)difference", "past ? (uint64_t)difference", "sign of the ticks"),
    Mutant("lower(span) & dropped(shift)", "0", "drop the remainder of the ticks"),
    Mutant("elapsed += rest;", "", "round an earlier time up"),
    Mutant("low_s -= upper(elapsed) + __builtin_sub", "low_s -= __builtin_sub", "drop the whole seconds before the reference"),
    Mutant("low_s += upper(elapsed) + __builtin_add", "low_s += __builtin_add", "drop the whole seconds after the reference"),
    Mutant("__builtin_sub_overflow(page", "0 * __builtin_sub_overflow(page", "drop the borrow of the seconds"),
    Mutant("__builtin_add_overflow(page.time_frac_sec", "0 * __builtin_add_overflow(page.time_frac_sec", "drop the carry of the seconds"),
    Mutant("page.time_sec + (uint64_t)offset_s, low_frac", "page.time_sec, low_frac", "drop the offset of TAI"),
    Mutant("page.time_sec + (uint64_t)offset_s, low_frac", "page.time_sec - (uint64_t)offset_s, low_frac", "sign of the offset of TAI"),
    Mutant("constants != control_word(0, TAI, limits->counter_id, 1) ||", "", "take any type of time for TAI"),
    Mutant("!(page.flags & TAI_OFFSET_VALID) ||", "", "believe an offset of TAI that is not valid"),
    Mutant("page.tai_offset_sec >= 0", "page.tai_offset_sec > 0", "take TAI for UTC"),
    Mutant("page.time_sec >= FARTHEST_S", "0", "reckon from any time"),
    Mutant("low_s > INT64_MAX / NS_PER_S", "0", "let nanoseconds wrap"),
    Mutant("low_s * NS_PER_S + upper(fraction)", "low_s * NS_PER_S", "drop the fraction of the second"),
    Mutant("low_ns + __builtin_add_overflow(lower", "low_ns + 0 * __builtin_add_overflow(lower", "drop the carry of the remainder"),
    Mutant("rest ? NS_PER_S : 0", "0", "drop the remainder from the latest time"),
    Mutant("high_ns += high_frac != 0;", "", "round the latest time down"),
    Mutant("__builtin_add_overflow(page.time_maxerror_nanosec, growth, &error_ns)", "((error_ns = page.time_maxerror_nanosec + growth), 0)", "let the error wrap"),
    Mutant("growth, &error_ns)", "0, &error_ns)", "drop the growth of the error"),
    Mutant("page.time_maxerror_nanosec, growth", "0, growth", "drop the error at the reference"),
    Mutant(" || error_ns > low_ns", "", "begin before 1970"),
    Mutant("__builtin_add_overflow(high_ns, error_ns, &out->latest_ns)", "((out->latest_ns = (int64_t)(high_ns + error_ns)), 0)", "let the latest time wrap"),
    Mutant("low_ns - error_ns", "low_ns + error_ns", "sign of the error before"),
    Mutant("(drift + NS_PER_S - 1) / NS_PER_S", "drift / NS_PER_S", "round the assumed drift down"),
    Mutant("upper(high) || ", "", "let the growth be of more than 64 bits"),
    Mutant("__builtin_add_overflow(lower(high), upper(low), &sum)", "((sum = lower(high) + upper(low)), 0)", "let the growth wrap"),
    Mutant("__builtin_add_overflow(sum, dropped(shift) + (lower(low) != 0), &sum)", "((sum += dropped(shift) + (lower(low) != 0)), 0)", "let the rounding of the growth wrap"),
    Mutant(" + (lower(low) != 0)", "", "drop what is below the growth"),
    Mutant("dropped(shift) + (lower", "(lower", "round the growth down"),
    Mutant("high << 1 << (LARGEST_SHIFT - shift)", "high << (LARGEST_SHIFT - shift)", "shift the upper word by one less"),
)  # fmt: skip

_WORLD: Final = (
    "test_ageing.py",
    "test_choice.py",
    "test_disruptions.py",
    "test_merger.py",
    "test_nesting.py",
    "test_testimony.py",
    "test_histories.py",
)
TABLE: Final[dict[str, tuple[tuple[str, ...], tuple[Mutant, ...]]]] = {
    "src/vmclock_chrony/measure.py": (
        ("test_chrony_measure.py", "test_chrony_report.py", "test_chrony_doubt.py", "test_chrony_reference.py"),
        CHRONY,
    ),
    "src/vmclock_chrony/reference.py": (("test_chrony_reference.py",), REFERENCE),
    "src/vmclock_chrony/doubt.py": (("test_chrony_doubt.py",), DOUBT),
    "src/vmclock_kernel/measure.py": (("test_kernel_measure.py",), KERNEL),
    "src/vmclock_clockbound/measure.py": (("test_clockbound_measure.py",), CLOCKBOUND),
    "src/vmclock_async/clockbound/_widening.py": (
        ("test_clockbound_widening.py", "test_clockbound_leap.py"),
        WIDENING,
    ),
    "src/vmclock_ntp/measure.py": (("test_ntp_measure.py",), NTP),
    "src/vmclock_ntp/selection.py": (("test_ntp_selection.py",), NTP_VOTES),
    "src/vmclock_ntp/leap.py": (("test_ntp_knowledge.py",), NTP_LEAP),
    "src/vmclock_ntp/packet.py": (("test_ntp_packet.py",), NTP_PACKET),
    "src/vmclock_ptp/measure.py": (("test_ptp_measure.py",), PTP),
    "src/vmclock_ptp/source.py": (("test_ptp_source.py",), CLAIM),
    "src/vmclock_ptp/pairing.py": (("test_ptp_reading.py",), CROSSING),
    "csrc/reckon.h": (("test_clock_core.py",), RECKON),
    "src/vmclock_async/reckoning.py": (("test_reckoning.py", "test_reckoning_cases.py"), RECKONING),
    "src/vmclock_async/_publishing/nesting.py": (_WORLD, NESTING),
    "src/vmclock_async/_publishing/agreement.py": (("test_agreement.py",), AGREEMENT),
    "src/vmclock_async/_publishing/ageing.py": (_WORLD, QUIET),
    "src/vmclock_async/_publishing/draft.py": (_WORLD, DRAFT),
    "src/vmclock_async/_publishing/disruptions.py": (_WORLD, DISRUPTION),
    "src/vmclock_async/_publishing/merger.py": (("test_histories.py",), MERGING),
    "src/vmclock_async/timebase.py": (
        (
            "test_timebase.py",
            "test_timebase_measured.py",
            "test_adjtimex.py",
            "test_clockbound_measure.py",
            "test_kernel_measure.py",
        ),
        TIMEBASE + MEASUREMENT + STEERING,
    ),
    "src/vmclock_async/_timebase/continuity.py": (("test_continuity.py", "test_standstill.py"), CONTINUITY),
    "src/vmclock_async/_publishing/standstill.py": (("test_standstill.py",), STANDSTILL),
    "src/vmclock_async/_publishing/generation.py": (("test_report.py",), GENERATION),
    "src/vmclock_async/abi.py": (("test_report.py",), RESTORE),
}
"""By file: the tests that are to notice, and the mutants."""


def tests_pass(tree: Path, tests: tuple[str, ...]) -> bool:
    """Whether *tests* pass in *tree*."""
    roots = [str(tree / "src")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=unshrunk",
    ]
    done = subprocess.run(
        [*command, *(f"tests/{name}" for name in tests)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode not in (0, 1):  # neither all passed nor some failed: nothing was tested
        raise RuntimeError(done.stdout)
    return done.returncode == 0


def put(tree: Path, path: str, text: str) -> None:
    """Make *text* the contents of the file *path* of *tree*; the core is compiled if it is a part of that."""
    (tree / path).write_text(text)
    if path.startswith("csrc/"):
        build(tree)


def build(tree: Path) -> None:
    """Compile the core of *tree*, without optimizing it; a mutant may make warnings."""
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "VMCLOCK_ASYNC_DEBUG": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )


def is_imported_from(tree: Path) -> bool:
    """Whether tests import from the copy, rather than from the installed tree."""
    script = "import vmclock_async, vmclock_chrony, vmclock_kernel as k; print(vmclock_async.__file__, k.__file__)"
    roots = [str(tree / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    found = subprocess.check_output([sys.executable, "-c", script], env=environment, cwd=tree, text=True)
    return all(path.startswith(str(tree)) for path in found.split())


def say(text: str) -> None:
    """Print *text* at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """Try each mutant that one of *words* names, or all; return 1 if any survived or did not match, else 0."""
    chosen = [
        (path, tests, mutant)
        for path, (tests, mutants) in TABLE.items()
        for mutant in mutants
        if not words or any(word in path or word in mutant.description for word in words)
    ]
    bad: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = Path(directory)
        for name in ("csrc", "src", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.py", "README.md"):
            shutil.copy(ROOT / name, tree)
        if not is_imported_from(tree):
            say("the copy is not what is imported: is something of ours on sys.path before PYTHONPATH?\n")
            return 1
        for tests in dict.fromkeys(tests for _, tests, _ in chosen):
            if not tests_pass(tree, tests):
                say(f"{' '.join(tests)} fail as it is\n")
                return 1
        for number, (path, tests, mutant) in enumerate(chosen, 1):
            original = (tree / path).read_text()
            say(f"{number:3}/{len(chosen)} {path}: {mutant.description}: ")
            if original.count(mutant.text) != 1:
                verdict = f"NO MATCH ({original.count(mutant.text)} times)"
            else:
                put(tree, path, original.replace(mutant.text, mutant.changed))
                verdict = "SURVIVED" if tests_pass(tree, tests) else "killed"
                put(tree, path, original)
            say(f"{verdict}\n")
            if verdict != "killed":
                bad.append(f"{verdict}: {path}: {mutant.description}")
    say(
        "\n".join(
            [f"{len(chosen) - len(bad)} of {len(chosen)} killed in {time.monotonic() - began:.0f} s", *bad, ""]
        )
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
