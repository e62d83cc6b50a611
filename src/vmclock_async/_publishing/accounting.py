"""Accounts for ``vmclock-async explain``: the terms of a bound, as its source gives them, and what came to them.

A source that ``Explains`` is asked right after the commit of its measurement. Its terms are rounded down to whole
nanoseconds; the rest, with what the ABI's own rounding adds, is a term of its own. Terms that do not make up the bound
that the source sent are left out: no account is better than a wrong one. Accounts are made at most ten times a second,
because a commit takes less time than an account.
"""

import logging
import math
import time
from collections.abc import Mapping
from typing import Final, final

from vmclock_async._segment.account import Account, reference_of
from vmclock_async._wording import failure
from vmclock_async.models import BodyUpdate, VMClockBody
from vmclock_async.sources import Explains, Source

__all__ = ("Accounting",)

_LEAST_PAUSE_S: Final = 0.1

_log: Final = logging.getLogger("vmclock_async.publisher")


@final
class Accounting:
    """Makes the accounts of what *sources*, in order of rank, have measured."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources: Final = tuple(sources)
        self._explaining: Final = {
            name: explaining for name, source in sources.items() if (explaining := _explaining(source)) is not None
        }
        self._due_at = -math.inf

    def is_due(self, name: str) -> bool:
        """Whether the next measurement of the source *name* is to be accounted for."""
        return name in self._explaining and time.monotonic() >= self._due_at

    def of(
        self,
        name: str,
        update: BodyUpdate,
        body: VMClockBody,
        passed_over: dict[str, str],
        contradicted_by: dict[str, str],
    ) -> Account | None:
        """The account of *body*, which was made of *update* from the source *name*; None if it gives none.

        *passed_over* says what each source ranked before it lacks, and *contradicted_by* where the intervals lie that
        contradict its own.
        """
        if not update.measures or update.time_maxerror_nanosec is None:
            return None
        source = self._explaining[name]
        self._due_at = time.monotonic() + _LEAST_PAUSE_S
        try:
            terms = _terms_of(source, update, body)
            if terms is None:
                return None
            return Account(
                reference=reference_of(body),
                terms=terms,
                source=name,
                sources=self._sources,
                passed_over=passed_over,
                contradicted_by=contradicted_by,
            )
        except Exception as exc:  # a stranger's code and values: whatever it is, the time itself is not affected
            _log.warning("%s: its explanation() failed with %s, and is not asked again", name, failure(exc))
            del self._explaining[name]
            return None


def _explaining(source: Source) -> Explains | None:
    try:
        return source if isinstance(source, Explains) else None
    except Exception:  # a stranger's code, which may compute its attributes
        return None


def _terms_of(source: Explains, update: BodyUpdate, body: VMClockBody) -> tuple[tuple[str, int, str], ...] | None:
    explanation = source.explanation()
    if explanation is None or explanation.counter_value != update.counter_value:
        return None
    assert update.time_maxerror_nanosec is not None
    terms = [(term.name, math.floor(term.ns), term.words) for term in explanation.terms]
    cut_ns = update.time_maxerror_nanosec - sum(ns for _, ns, _ in terms)
    if not 0 <= cut_ns <= len(terms) + 1:
        return None
    terms.append(("rounding of terms", cut_ns, "to whole nanoseconds and to the ABI's 2**-64 s, upward"))
    if body.counter_value != update.counter_value:
        nested_ns = body.time_maxerror_nanosec - update.time_maxerror_nanosec
        terms.append(("nesting", nested_ns, "earlier intervals allow this much less, at the moment of the commit"))
    return tuple(terms)
