"""Read a segment that another process writes at full speed, and judge each copy."""

import json
import os
import sys
import time

from vmclock_async import SegmentReader, _core

path, seconds, how = sys.argv[1], float(sys.argv[2]), sys.argv[3]
seen = {"read": 0, "changes": 0, "torn": 0, "backward": 0, "missed": 0}


def judge(seq_count: int, whole: bool) -> None:
    global last
    seen["read"] += 1
    seen["torn"] += not whole
    ahead = (seq_count - last) % 2**32
    seen["changes"] += ahead != 0
    seen["backward"] += ahead >= 2**31
    last = seq_count


def look_at_bytes() -> None:
    copy = page.read()
    if copy is None:
        seen["missed"] += 1
        return
    constants = copy[10], copy[11]
    whole = copy[16:104] == copy[16:24] * 11 and constants in ((0, 0), (copy[16], copy[17]))
    judge(int.from_bytes(copy[12:16], "little"), whole)


def look_at_snapshot() -> None:
    snapshot = reader.snapshot()
    body = snapshot.body
    number = body.disruption_marker
    low = number.to_bytes(8, "little")
    judge(
        snapshot.seq_count,
        (
            body.flags,
            body.counter_value,
            body.counter_period_frac_sec,
            body.counter_period_esterror_rate_frac_sec,
            body.counter_period_maxerror_rate_frac_sec,
            body.time_sec,
            body.time_frac_sec,
            body.time_esterror_nanosec,
            body.time_maxerror_nanosec,
        )
        == (number,) * 9
        and (
            body.clock_status,
            body.leap_second_smearing_hint,
            body.tai_offset_sec,
            body.leap_indicator,
            body.counter_period_shift,
        )
        == (low[2], low[3], int.from_bytes(low[4:6], "little", signed=True), low[6], low[7]),
    )


with SegmentReader(path) as reader:
    page = _core.Page(os.open(path, os.O_RDONLY))
    last = reader.seq_count & ~1
    look = look_at_bytes if how == "bytes" else look_at_snapshot
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + seconds
    # A reader that saw little proves little.
    while time.monotonic() < deadline or seen["read"] < 1000 or seen["changes"] < 10:
        for _ in range(100):
            look()
print(json.dumps(seen))
