"""The barriers of the seqlock in Arm object code, which ``kit/object_code.py`` follows path by path.

Mutants of the header show that it can tell.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kit.object_code import (
    CLOCK,
    COMPILER,
    DISASSEMBLER,
    FENCE,
    FLAGS,
    IDENTITY,
    PAGE_OBJECT,
    Automaton,
    Function,
    OutOfOrderError,
    compile_wrappers,
    disassemble,
    follow,
    reading,
    reads_counter_in_order,
    writing,
)


@pytest.fixture(scope="module", autouse=True)
def _cross_compiler() -> None:
    """Every test here needs the compiler; where CI is set, its absence is a failure (see conftest.py)."""
    if shutil.which(COMPILER) and shutil.which(DISASSEMBLER):
        return
    pytest.skip(f"no {COMPILER}; install Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")


# The header by itself.


@pytest.fixture(scope="module")
def source() -> Path:
    """The directory of the core's sources."""
    return Path(__file__).parent.parent / "csrc"


@pytest.fixture(scope="module")
def wrappers(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    """The functions of the header as it is."""
    return compile_wrappers(tmp_path_factory.mktemp("wrappers"), (source / "seqlock.h").read_text())


@pytest.mark.parametrize("name", ["commit", "reset", "commit_bound"])
def test_commit_is_fenced(wrappers: dict[str, Function], name: str) -> None:
    """Odd control word, dmb ish, body in whole words, stlr of the control word, on every path and with no call."""
    assert follow(wrappers[name], writing) == {"idle", "odd", "open", "done"}


@pytest.mark.parametrize("name", ["read_page", "read_with_counter"])
def test_read_is_fenced(wrappers: dict[str, Function], name: str) -> None:
    """ldar of the control word, body in whole words, dmb ishld, control word again, on every path."""
    counted = {"isb", "counted"} if name == "read_with_counter" else set()
    assert follow(wrappers[name], reading) == {"idle", "first", "loading", "fenced", "done"} | counted


def test_fenced_read_looks_at_the_device_last(wrappers: dict[str, Function]) -> None:
    """The device's marker is loaded after the counter and before the dmb: what it says is not older than the time."""
    states = follow(wrappers["read_with_fence"], reading, x0=IDENTITY, x3=FENCE)
    assert states == {"idle", "first", "loading", "isb", "counted", "marked", "fenced", "done"}


@pytest.mark.parametrize("name", ["counter", "read_with_counter", "read_with_fence"])
def test_counter_is_read_in_order(wrappers: dict[str, Function], name: str) -> None:
    """isb before the counter and a dependent load after it, as the kernel does."""
    assert reads_counter_in_order(wrappers[name])


# The extension module as it is built.

_ASK = """
import json, sysconfig
paths = sysconfig.get_path("include"), sysconfig.get_config_h_filename()
print(json.dumps([*paths, *map(sysconfig.get_config_var, ("MULTIARCH", "py_version_short", "Py_GIL_DISABLED"))]))
"""


class Headers(NamedTuple):
    """Where a Python's headers are, and which pyconfig.h describes this machine."""

    include: Path
    config: Path
    limited_api: bool


def headers_of(python: str) -> Headers | None:
    """The headers of *python*: its own, or those that .ci/python-headers has unpacked; None if there are none."""
    answer = subprocess.run([python, "-c", _ASK], check=True, capture_output=True, text=True).stdout
    include, config, multiarch, version, free_threaded = json.loads(answer)
    unpacked = Path(__file__).parent.parent / ".headers" / "usr" / "include" / f"python{version}"
    for found in (Path(include), unpacked):
        if (found / "Python.h").exists():
            # Debian's pyconfig.h only includes the one of the target's architecture.
            own = found.parent / (multiarch or "") / found.name / "pyconfig.h"
            return Headers(found, own if multiarch and own.exists() else Path(config), not free_threaded)
    return None


_PYTHONS = [pytest.param(sys.executable, id="this-python")]
if os.access("/usr/bin/python3", os.X_OK) and headers_of("/usr/bin/python3"):
    _PYTHONS.append(pytest.param("/usr/bin/python3", id="system-python"))


@pytest.fixture(scope="module", params=_PYTHONS)
def extension(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Function]:
    """The functions of the extension, compiled with the headers of this Python or the system's."""
    headers = headers_of(request.param)
    if headers is None:
        pytest.skip(f"no Python.h for {request.param}; install python3-dev, or run .ci/python-headers")
    directory = tmp_path_factory.mktemp("extension")
    # What Debian's pyconfig.h asks for. This machine's will do: both are LP64.
    target = directory / "aarch64-linux-gnu" / headers.include.name
    target.mkdir(parents=True)
    shutil.copy(headers.config, target / "pyconfig.h")
    defines = ["-DPy_LIMITED_API=0x030B0000"] if headers.limited_api else []
    includes = [f"-I{directory}", f"-I{headers.include}"]
    functions: dict[str, Function] = {}
    for file in sorted(source.glob("*.c")):
        result = directory / f"{file.stem}.o"
        subprocess.run([COMPILER, *FLAGS, "-fPIC", *defines, *includes, str(file), "-o", str(result)], check=True)
        functions |= disassemble(result)
    return functions


def test_extension_commits_in_order(extension: dict[str, Function]) -> None:
    """What holds for the header holds where the compiler has inlined it: commit() and reset()."""
    for name in ("page_commit", "page_reset"):
        states = follow(extension[name], writing, x0=PAGE_OBJECT)
        assert states == {"idle", "odd", "open", "done"}, name


def test_extension_reads_in_order(extension: dict[str, Function]) -> None:
    """read() and read_with_counter(), with the counter between the body and the fence."""
    fenced = {"idle", "first", "loading", "fenced", "done"}
    assert follow(extension["page_read"], reading, x0=PAGE_OBJECT) == fenced
    assert follow(extension["page_read_with_counter"], reading, x0=PAGE_OBJECT) == fenced | {"isb", "counted"}
    assert reads_counter_in_order(extension["page_read_with_counter"])
    assert reads_counter_in_order(extension["core_counter"])


def test_extension_tells_the_time_in_order(extension: dict[str, Function]) -> None:
    """now(): page, counter, the device's marker, fence, control word."""
    for name in ("clock_now", "now_again"):
        states = follow(extension[name], reading, x0=CLOCK)
        assert states == {"idle", "first", "loading", "isb", "counted", "marked", "fenced", "done"}, name
        assert reads_counter_in_order(extension[name])


_RANDOM = re.compile(
    r"bl .*getauxval.*\n(?:.*\n)*?tbn?z w\d+, #16, .*\n(?:.*\n)*?"
    r"mrs x\d+, (?:rndr|s3_3_c2_c4_0)\ncset w\d+, ne\n"
)


def test_extension_draws_from_a_processor_that_has_a_generator(extension: dict[str, Function]) -> None:
    """RNDR, an illegal instruction elsewhere, comes after the kernel's bit 16 (HWCAP2_RNG), and its flag is taken."""
    function = extension["core_processor_random"]
    assert _RANDOM.search("".join(f"{name} {operands}\n" for name, operands, _ in function.values()))


# The checks can fail.

BODY_STORE = """    for (size_t i = 0; i < words; i++)
        atomic_store_explicit(&page[BODY + i], body[i], memory_order_relaxed);
"""
BODY_LOAD = """#pragma GCC unroll 14
    for (size_t i = BODY; i < PAGE_WORDS; i++)
        copy[i] = atomic_load_explicit(&page[i], memory_order_relaxed);
"""
COUNTER = "    if (counter)\n        *counter = read_counter_in_read();\n"
MARKER = """    if (fence)
        *marker = atomic_load_explicit(&fence[MARKER], memory_order_relaxed);
"""
RELEASE_FENCE = "    atomic_thread_fence(memory_order_release);\n"
ACQUIRE_FENCE = "    atomic_thread_fence(memory_order_acquire);\n"


@pytest.mark.parametrize(
    ("function", "automaton", "before", "after", "complaint"),
    [
        pytest.param("commit", writing, RELEASE_FENCE, "", "no full fence", id="release-fence-removed"),
        pytest.param("reset", writing, RELEASE_FENCE, "", "no full fence", id="release-fence-removed-reset"),
        pytest.param(
            "commit",
            writing,
            "control, memory_order_relaxed);\n" + RELEASE_FENCE,
            "control, memory_order_release);\n",
            "no full fence",
            id="release-store-in-place-of-the-fence",
        ),
        pytest.param(
            "commit",
            writing,
            "next, memory_order_release",
            "next, memory_order_relaxed",
            "not a release",
            id="last-store-relaxed",
        ),
        pytest.param(
            "commit",
            writing,
            BODY_STORE,
            "    memcpy((void *)&page[BODY], body, words * sizeof(uint64_t));\n",
            "call memcpy inside",
            id="body-stored-with-memcpy",
        ),
        pytest.param("read_page", reading, ACQUIRE_FENCE, "", "no fence after", id="acquire-fence-removed"),
        pytest.param(
            "read_with_counter",
            reading,
            ACQUIRE_FENCE,
            "",
            "no fence after the body",
            id="acquire-fence-removed-counter",
        ),
        pytest.param(
            "read_page",
            reading,
            "&page[CONTROL], memory_order_acquire",
            "&page[CONTROL], memory_order_relaxed",
            "no acquire before it",
            id="first-load-relaxed",
        ),
        pytest.param(
            "read_page",
            reading,
            BODY_LOAD,
            "    memcpy(&copy[BODY], (void *)&page[BODY], 96);\n",
            "not a word",
            id="body-loaded-with-memcpy",
        ),
        pytest.param(
            "read_with_counter",
            reading,
            'volatile("isb\\n\\t',
            'volatile("',
            "not after the body and an isb",
            id="isb-removed",
        ),
        pytest.param(
            "read_with_fence", reading, ACQUIRE_FENCE, "", "no fence after", id="acquire-fence-removed-fence"
        ),
        pytest.param(
            "read_with_fence",
            reading,
            COUNTER + MARKER,
            MARKER + COUNTER,
            "marker is read in state loading",
            id="marker-before-the-counter",
        ),
    ],
)
def test_barrier_that_is_missing_is_found(
    source: Path, tmp_path: Path, function: str, automaton: Automaton, before: str, after: str, complaint: str
) -> None:
    """The header with one barrier weakened is refused, for that reason."""
    header = (source / "seqlock.h").read_text()
    assert header.count(before) == 1
    mutant = compile_wrappers(tmp_path, header.replace(before, after))
    with pytest.raises(OutOfOrderError, match=complaint):
        follow(mutant[function], automaton, x0=IDENTITY, **({"x3": FENCE} if "fence" in function else {}))


@pytest.mark.parametrize(
    ("before", "after"), [('volatile("isb\\n\\t', 'volatile("'), ("\\n\\tldr xzr, [%1]", "")], ids=["isb", "load"]
)
def test_counter_out_of_order_is_found(source: Path, tmp_path: Path, before: str, after: str) -> None:
    """The counter without its isb, or without the dependent load, is refused."""
    header = (source / "seqlock.h").read_text()
    assert header.count(before) == 1
    assert not reads_counter_in_order(compile_wrappers(tmp_path, header.replace(before, after))["counter"])
