"""Which tests are marked ``process``, ``rig`` and ``long``: those that reach what starts one, or takes long.

A test reaches what its function names, what its fixtures name, and what the functions of the tests name that these
reach. No list is kept by hand, so a new test has its marker before anybody thinks of it. Only ``waits``, which nothing
but the order of the tests depends on, is set by hand.
"""

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import pytest

from kit import chronyd
from vmclock_async.testing import check_source

__all__ = ("mark", "with_long_waits_first")

_TESTS: Final = f"{Path(__file__).parent.parent}/"
_MODULES: Final = ("multiprocessing", "pty", "subprocess")
_FUNCTIONS: Final = frozenset({"fork", "forkpty", "open_process", "posix_spawn", "run_process"})
_MARKERS: Final = {chronyd.Chronyd: {"process", "rig"}, check_source: {"long"}}


def mark(items: list[pytest.Item]) -> None:
    """Give each of *items* the markers of what it reaches."""
    for item in items:
        if isinstance(item, pytest.Function):
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            functions = [item.function, *(fixture.func for found in fixtures for fixture in found)]
            for marker in sorted(set().union(*map(_reached, functions))):
                item.add_marker(marker)


def with_long_waits_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """*items*, with those that are marked ``waits`` at the start of the list and at its middle.

    There two of the workers begin, because each of an even number of workers begins with its part of the list. Their
    waiting goes on beside the others' work. At the end of the list such a test would be all that still runs.
    """
    waiting = [item for item in items if item.get_closest_marker("waits")]
    others = [item for item in items if not item.get_closest_marker("waits")]
    in_first_half = len(items) // 2 - len(waiting[::2])
    return [*waiting[::2], *others[:in_first_half], *waiting[1::2], *others[in_first_half:]]


@cache
def _reached(start: FunctionType | type) -> frozenset[str]:
    """The markers of what *start* reaches."""
    found: set[str] = set()
    seen, waiting = {start}, [start]
    while waiting:
        for thing in _named(waiting.pop()):
            if isinstance(thing, ModuleType):
                is_start = thing.__name__.partition(".")[0] in _MODULES
            else:
                is_start = thing in _FUNCTIONS
            found |= {"process"} if is_start else _MARKERS.get(thing, set())
            if isinstance(thing, FunctionType | type) and thing not in seen:
                seen.add(thing)
                waiting.append(thing)
    return frozenset(found)


@cache
def _named(thing: FunctionType | type) -> frozenset[Any]:
    """The modules, functions and classes that the code of *thing* names, and the names of attributes there."""
    named: set[Any] = set()
    functions = list(vars(thing).values()) if isinstance(thing, type) else [thing]
    for function in map(inspect.unwrap, functions):
        if isinstance(function, FunctionType) and function.__code__.co_filename.startswith(_TESTS):
            values = (function.__globals__.get(name, name) for name in _names(function.__code__))
            named.update(value for value in values if isinstance(value, str | ModuleType | FunctionType | type))
    return frozenset(named)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
