"""How lengths of time are written for people. Of bounds, which are rounded up, test_intervals.py has the cases."""

import pytest

from vmclock_async._notation import duration_text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (41_249, "41.2 us"),
        (41_250, "41.3 us"),
        (999_499, "999 us"),
        (999_500, "1 ms"),
        (259_200_000_000_001, "259200 s"),
        (259_200_500_000_000, "259201 s"),
    ],
)
def test_what_is_no_bound_is_rounded_to_the_nearest(ns: int, text: str) -> None:
    """A clock set by three days and a nanosecond was set by 259200 s."""
    assert duration_text(ns, to_nearest=True) == text
