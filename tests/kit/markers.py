"""Which tests are marked ``process``, ``rig`` and ``long``: those that reach what starts one, or takes long.

A test reaches what its function names, what its fixtures name, and what the functions of the tests name that these
reach. No list is kept by hand, so a new test has its marker before anybody thinks of it.
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

__all__ = ("mark",)

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
