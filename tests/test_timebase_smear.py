"""Whether smearing servers may be smearing: by the table of leap seconds, or without one."""

from pathlib import Path

import pytest

from vmclock_async.timebase import is_near_leap

DAY_S = 86_400
LEAP_S = 1_483_228_800
"""2017-01-01."""
TABLE = """# Made for a test
#$ 3676924800
#@ 3707596800
2272060800 10 # 1 Jan 1972
3692217600 37 # 1 Jan 2017
"""
EXPIRES_S = 3_707_596_800 - 2_208_988_800


@pytest.mark.parametrize(
    ("utc_s", "near"),
    [
        (LEAP_S - DAY_S, True),
        (LEAP_S + DAY_S, True),
        (LEAP_S - DAY_S - 1, False),
        (LEAP_S + DAY_S + 1, False),
        (2_272_060_800 - 2_208_988_800, False),
        (EXPIRES_S - DAY_S - 1, False),
    ],
)
def test_table_tells_of_leap_seconds(tmp_path: Path, utc_s: int, near: bool) -> None:
    """Within a day of one that is listed, and of no other while the table holds; its first line is none."""
    table = tmp_path / "leap-seconds.list"
    table.write_text(TABLE)
    assert is_near_leap(utc_s, table=table) == near


@pytest.mark.parametrize("text", [None, "", "#@ what\n", "#@ 3400000000\n3692217600 37\n"])
@pytest.mark.parametrize(
    ("utc_s", "near"),
    [
        (1_798_761_600 - DAY_S, True),
        (1_798_761_600 + DAY_S, True),
        (1_782_864_000, True),
        (1_782_864_000 + DAY_S + 1, False),
        (1_775_001_600, False),
    ],
    ids=["30 December", "2 January", "1 July", "3 July", "1 April"],
)
def test_without_a_table_any_half_year_may_end_with_one(
    tmp_path: Path, text: str | None, utc_s: int, near: bool
) -> None:
    """Where the table is missing, unreadable or has expired."""
    table = tmp_path / "leap-seconds.list"
    if text is not None:
        table.write_text(text)
    assert is_near_leap(utc_s, table=table) == near
