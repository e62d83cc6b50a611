"""The compiled core against its manual (``_core.pyi``); the page: ``test_core_page.py``."""

import ast
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import vmclock_async
from kit.processors import pinned_to_one_processor
from vmclock_async import _core

RunScript = Callable[..., str]


def test_counter_never_goes_back_and_advances() -> None:
    """On one processor each reading is at least the one before, and time passes between them."""
    with pinned_to_one_processor():
        readings = [_core.counter() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert 0 <= readings[0] < readings[-1] < 2**64


def test_counter_is_the_one_of_this_machine() -> None:
    """COUNTER_ID follows the processor: the ABI's 1 on x86, 0 on Arm."""
    assert {"x86_64": 1, "aarch64": 0}[os.uname().machine] == _core.COUNTER_ID
    assert _core.READ_LIMIT_NS == 50_000


class Derived(_core.Clock):
    """A clock in the core, and what it asks when it has no answer itself."""

    def _now_slowly(self, max_error_ns: int | None) -> object:
        return max_error_ns

    def _at_slowly(self, stamp: object, max_error_ns: int | None) -> object:
        return stamp, max_error_ns

    _at_monotonic_slowly = _at_slowly


def is_special(name: str) -> bool:
    """Whether Python itself gives *name* its meaning."""
    return name.startswith("__")


def test_manual_lists_what_there_is() -> None:
    """_core.pyi names exactly the module's members and those of its types, with a docstring for each function."""
    (package,) = vmclock_async.__path__
    manual = ast.parse((Path(package) / "_core.pyi").read_text())
    documented: dict[str, set[str]] = {"": set()}
    for node in manual.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                documented[""].add(name)
            case ast.FunctionDef(name=name):
                documented[""].add(name)
                assert ast.get_docstring(node), name
            case ast.ClassDef(name=name):
                documented[""].add(name)
                members = [member for member in node.body if isinstance(member, ast.FunctionDef)]
                documented[name] = {member.name for member in members if not is_special(member.name)}
                undocumented = [member.name for member in members if not ast.get_docstring(member)]
                assert all(entry.startswith("_") for entry in undocumented), name
    assert documented[""] == {name for name in vars(_core) if not is_special(name)}
    # A derived class gets now() as its own, for speed.
    types = {"Page": _core.Page, "TimeInterval": _core.TimeInterval, "Clock": Derived}
    for name, kind in types.items():
        present = {member for base in kind.__mro__[:-1] for member in vars(base) if not is_special(member)}
        assert documented[name] == present - {"_now_slowly", "_at_slowly", "_at_monotonic_slowly"}, name
        assert kind.__doc__
    assert documented.keys() == {"", *types}
    assert _core.__doc__


def test_processor_gives_random_bytes_where_the_kernel_lists_its_generator() -> None:
    """32 bytes, other ones each time; None where /proc/cpuinfo has neither rdrand (x86) nor rng (Arm)."""
    listed = re.findall(r"^(?:flags|Features)\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    drawn = [_core.processor_random() for _ in range(4)]
    if not {"rdrand", "rng"} & set(listed):
        assert drawn == [None] * 4
        return
    words = {each[at : at + 8] for each in drawn if each for at in range(0, 32, 8)}
    assert len(words) == 16


def test_core_built_by_a_later_python_runs_on_an_earlier_one() -> None:
    """No format with '#' is in the source: the stable ABI does not cover what it expects of the caller's headers.

    Built with the headers of 3.13 or later, such a call raises SystemError on 3.11 and 3.12.
    """
    source = "".join(path.read_text() for path in sorted((Path(__file__).parent.parent / "csrc").glob("*.c")))
    calls = re.findall(r"\b(?:Py_BuildValue|PyArg_Parse\w*)\([^;]*;", source)
    formats = [text for call in calls for text in re.findall(r'"([^"]*)"', call)]
    assert formats
    assert [text for text in formats if "#" in text] == []


def test_calls_leak_nothing(run_script: RunScript) -> None:
    """Many calls, successful or refused, leave the process as large as it was (20,000 times 16 bytes are 320 kB)."""
    grown = json.loads(run_script("leak"))
    assert len(grown) > 60
    assert {name: size for name, size in grown.items() if size >= 256 * 1024} == {}
