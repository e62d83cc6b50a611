"""Print by how many bytes the process grows when it calls each function of the core 20,000 times, as JSON."""

import datetime
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from vmclock_async import _core as core

_core: Any = core  # what is wrong on purpose below is for the core to find


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def new_file() -> int:
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    return fd


writable = _core.Page(new_file(), writable=True)
reader = _core.Page(os.open(f"/proc/self/fd/{writable.fileno()}", os.O_RDONLY))
shut = _core.Page(new_file())
shut.close()
spare = new_file()
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
body = bytes(range(96))


class Clock(_core.Clock):  # type: ignore[misc]
    def _now_slowly(self, max_error_ns: object) -> None:
        return

    def _at_slowly(self, stamp: object, max_error_ns: object) -> None:
        return

    _at_monotonic_slowly = _at_slowly


# SYNCHRONIZED, bounds valid, 2020, 2**-32 s a tick.
page = bytearray(112)
page[8:10] = 1, 0
page[10] = _core.COUNTER_ID
page[24] = 1 << 4 | 1 << 6
page[34] = 2
page[0x28:0x30] = _core.counter().to_bytes(8, "little")
page[0x30:0x38] = (2**32).to_bytes(8, "little")
page[0x48:0x50] = (1_578_700_800).to_bytes(8, "little")
with tempfile.NamedTemporaryFile(delete=False) as named:  # that has a name, as segments have
    os.ftruncate(named.fileno(), 4096)
    timed = _core.Page(os.dup(named.fileno()))
with open(named.name, "r+b") as file:
    file.write(page)
told = bytes(page)
clock, detached = Clock(), Clock()
attachment = timed, timed, 0, 0, 0, 0, (_core.counter() + 2**62) % 2**64
clock._limit(_core.COUNTER_ID, 1000, 0, 0)
clock._attach(*attachment)
assert clock.now() is not None
stamp, moment = _core.counter(), time.monotonic_ns()
assert clock.at(stamp) is not None
assert clock.at_monotonic(moment) is not None
interval, other = _core.TimeInterval(1, 2), _core.TimeInterval(1, 3)
many: list[object] = []


def keep() -> None:
    many.append(clock.now())
    many[40:] = []


def refused(error: type[Exception], call: Callable[[], object]) -> Callable[[], object]:
    def refuse() -> None:
        try:
            call()
        except error:
            return
        sys.exit("it is not refused")

    return refuse


calls: dict[str, Callable[[], object]] = {
    "now": lambda: clock.now(max_error_ns=10**9),
    "now-kept": keep,
    "now-slowly": lambda: detached.now(),
    "now-refused": refused(TypeError, lambda: clock.now(1)),
    "now-no-number": lambda: clock.now(max_error_ns="x"),
    "now-beyond": lambda: clock.now(max_error_ns=-1),
    "Clock": lambda: Clock()._attach(*attachment),
    "Clock-subclass": lambda: type("Another", (_core.Clock,), {}),
    "attach": lambda: clock._attach(*attachment),
    "attach-refused": refused(TypeError, lambda: clock._attach(timed, 3, 0, 0, 0, 0, 0)),
    "attach-refused-number": refused(OverflowError, lambda: clock._attach(timed, None, 0, 0, 0, 0, 2**70)),
    "at": lambda: clock.at(stamp, max_error_ns=10**9),
    "at-refused": refused(TypeError, lambda: clock.at()),
    "at-slowly": lambda: detached.at(stamp),
    "at_monotonic": lambda: clock.at_monotonic(moment, max_error_ns=10**9),
    "at_monotonic-slowly": lambda: detached.at_monotonic(2**70),
    "limit": lambda: clock._limit(_core.COUNTER_ID, 1000, 0, 0),
    "limit-refused": refused(ValueError, lambda: clock._limit(_core.COUNTER_ID, 2**40, 0, 0)),
    "leave": lambda: shut.leave(),
    "clockbound_commit": lambda: _core.clockbound_commit(writable, bytes(80)),
    "clockbound_commit-refused": refused(ValueError, lambda: _core.clockbound_commit(reader, bytes(80))),
    "clockbound_commit-length": refused(ValueError, lambda: _core.clockbound_commit(writable, bytes(81))),
    "unchanged": lambda: _core.unchanged(timed, 0, timed, 0, 0, 0, 2**63),
    "unchanged-refused": refused(TypeError, lambda: _core.unchanged(timed, 0, 3, 0, 0, 0, 2**63)),
    "set_counter_error": lambda: _core.set_counter_error(ValueError),
    "set_interval_functions": lambda: _core.set_interval_functions(*[repr] * 11),
    "set_interval_functions-refused": refused(TypeError, lambda: _core.set_interval_functions(repr)),
    "bounds": lambda: _core.bounds(tuple(range(15)), 1, 0, 5, 1, 1, 2**33),
    "bounds-refused": refused(TypeError, lambda: _core.bounds((1,), 1, 0, 5, 1, 1, 2**33)),
    "reckon": lambda: _core.reckon(told, 5, _core.COUNTER_ID, (2**33, 0), (2**33, 0), 0),
    "reckon-refused": refused(ValueError, lambda: _core.reckon(b"", 5, 1, (1, 0), (1000, 0), 0)),
    "TimeInterval": lambda: _core.TimeInterval(1, 2),
    "TimeInterval-refused": refused(ValueError, lambda: _core.TimeInterval(2, 1)),
    "TimeInterval-refused-type": refused(TypeError, lambda: _core.TimeInterval(2, True)),
    "as_dict": lambda: interval.as_dict(strings=True),
    "as_dict-refused": refused(TypeError, lambda: interval.as_dict(strings=1)),
    "before-datetime": lambda: interval.before(EPOCH),
    "contains": lambda: (2 in interval, interval.contains(other)),
    "contains-refused": refused(TypeError, lambda: "x" in interval),
    "json_schema": lambda: _core.TimeInterval.__get_pydantic_json_schema__({}, dict),
    "before": lambda: (interval.before(other), interval.after(2**70)),
    "before-refused": refused(TypeError, lambda: interval.before("x")),
    "compare": lambda: interval.compare(5),
    "numbers": lambda: (interval.midpoint_ns, interval.error_ns, interval.earliest_ns, interval._status),
    "datetimes": lambda: (interval.earliest, interval.latest, interval.midpoint, interval.status),
    "repr": lambda: (repr(interval), str(interval)),
    "equality": lambda: (interval == other, interval != 3, hash(interval)),
    "order-refused": refused(TypeError, lambda: interval < other),
    "reduce": lambda: interval.__reduce__(),
    "schema": lambda: _core.TimeInterval.__get_pydantic_core_schema__(None, None),
    "checked_counter": lambda: _core.checked_counter(),
    "counter": lambda: _core.counter(),
    "clocks": lambda: _core.clocks(),
    "open_private": lambda: _core.close_private(_core.open_private(-1, "/dev/null", os.O_RDONLY, 0)),
    "open_private-refused": refused(OSError, lambda: _core.open_private(-1, "/no/such/file", os.O_RDONLY, 0)),
    "close_private": lambda: _core.close_private(spare),
    "tsc_is_invariant": lambda: _core.tsc_is_invariant(),
    "processor_random": lambda: _core.processor_random(),
    "Page": lambda: _core.Page(os.dup(spare), writable=True),
    "Page-refused": refused(OSError, lambda: _core.Page(-1)),
    "close": lambda: shut.close(),
    "closed": lambda: writable.closed,
    "control_word": lambda: reader.control_word,
    "fileno": lambda: reader.fileno(),
    "read": lambda: reader.read(),
    "read-refused": refused(ValueError, lambda: shut.read()),
    "read_with_counter": lambda: reader.read_with_counter(),
    "commit": lambda: writable.commit(body, 300 - 299, None),
    "commit-refused": refused(ValueError, lambda: writable.commit(body, 300, None)),
    "reset": lambda: writable.reset(1000),
    "reset-refused": refused(ValueError, lambda: writable.reset(2**70)),
}

in_python = {
    "as_dict": 2,
    "as_dict-refused": 2,
    "before-datetime": 2,
    "before-refused": 2,
    "compare": 2,
    "contains-refused": 2,
    "datetimes": 2,
    "json_schema": 2,
    "repr": 2,
    "schema": 25,
}
slow = {"Clock-subclass": 50, "processor_random": 4, **in_python}  # a hypervisor answers CPUID
# They change what the others do.
last = ("set_counter_error", "set_interval_functions", "set_interval_functions-refused")
grown = {}
gc.collect()
gc.freeze()  # what is there for good need not be looked at again and again
for name in sorted(calls, key=last.__contains__):
    call, number = calls[name], 20_000 // slow.get(name, 1)
    for _ in range(number // 10):
        call()
    gc.collect()  # a class is freed by nothing else
    before = resident()
    for _ in range(number):
        call()
    gc.collect()
    grown[name] = resident() - before
print(json.dumps(grown))
os.unlink(named.name)
