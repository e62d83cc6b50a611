"""Arm object code of the seqlock, and automata that follow each path through it.

x86 keeps stores in order by itself, so a barrier that is missing from the source is invisible there. Here the
protocol is compiled for aarch64, and every path through each function, as the disassembler shows it, is followed
by a small automaton that knows which order the protocol needs.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

COMPILER = "aarch64-linux-gnu-gcc"
DISASSEMBLER = "aarch64-linux-gnu-objdump"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wno-cast-function-type", "-Werror", "-c"]

WRAPPERS = """
#include <string.h>
#include "seqlock.h"
#define WHOLE __attribute__((flatten)) /* with all that it calls, as an automaton follows it */
uint32_t commit(page_word *page, const uint64_t *body, size_t words, int counter_id, int time_type)
{
    return seqlock_commit(page, body, words, counter_id, time_type);
}
uint32_t reset(page_word *page, uint32_t size) { return seqlock_reset(page, size); }
uint16_t commit_bound(page_word *page, const uint64_t *contents, size_t words)
{
    return clockbound_commit(page, contents, words);
}
WHOLE bool read_page(page_word *page, uint64_t *copy) { return seqlock_read(page, copy, NULL, NULL, NULL); }
WHOLE bool read_with_counter(page_word *page, uint64_t *copy, uint64_t *counter)
{
    return seqlock_read(page, copy, counter, NULL, NULL);
}
WHOLE bool read_with_fence(page_word *page, uint64_t *copy, uint64_t *counter, page_word *fence, uint64_t *marker)
{
    uint64_t ticks = 0;
    bool whole = seqlock_read(page, copy, &ticks, fence, marker);
    *counter = ticks;
    return whole;
}
uint64_t counter(void) { return read_counter(); }
"""


# From source to instructions.


class Instruction(NamedTuple):
    """One line of disassembly; `called` is the function that a branch out of the text leads to."""

    name: str
    operands: str
    called: str | None


Function = dict[int, Instruction]

_LABEL = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_LINE = re.compile(r"^\s+([0-9a-f]+):\s+(\S+)\s*(.*?)\s*(?://.*)?$")
_RELOCATION = re.compile(r"^\s+([0-9a-f]+): R_AARCH64_(?:CALL26|JUMP26)\s+(\S+)$")
_LOCAL_CALL = re.compile(r"<([^>+]+)>$")


def disassemble(object_file: Path) -> dict[str, Function]:
    """The instructions of each function in *object_file*, by address."""
    command = [DISASSEMBLER, "-dr", "--no-show-raw-insn", str(object_file)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions: dict[str, Function] = {}
    current: Function = {}
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            current = functions.setdefault(label[1], {})
        elif relocation := _RELOCATION.match(line):
            address = int(relocation[1], 16)
            current[address] = current[address]._replace(called=relocation[2])
        elif found := _LINE.match(line):
            local = _LOCAL_CALL.search(found[3]) if found[2] == "bl" else None
            current[int(found[1], 16)] = Instruction(found[2], found[3], local[1] if local else None)
    return functions


def compile_wrappers(directory: Path, header: str) -> dict[str, Function]:
    """The functions of WRAPPERS, compiled with *header* as seqlock.h."""
    (directory / "seqlock.h").write_text(header)
    (directory / "wrappers.c").write_text(WRAPPERS)
    result = directory / "wrappers.o"
    subprocess.run([COMPILER, *FLAGS, str(directory / "wrappers.c"), "-o", str(result)], check=True)
    return disassemble(result)


# Which word of the page a register points at.

IDENTITY, CONTROL, BODY = "identity", "control word", "body"
FENCE = "fence"
"""Any word of the page of the device that a reading is fenced by."""
CLOCK, PAGE_OBJECT, FENCE_OBJECT = "Clock", "Page", "Page of the fence"
POINTERS = {CLOCK: {16: PAGE_OBJECT, 24: FENCE_OBJECT}, PAGE_OBJECT: {16: IDENTITY}, FENCE_OBJECT: {16: FENCE}}
"""Where in an object, behind PyObject_HEAD, a pointer is, and to what."""
Registers = frozenset[tuple[str, str]]
"""Pairs of a register and what it points at; other registers point neither into a page nor to these objects."""

_REGISTER = re.compile(r"^[xw](\d+)$")
_MEMORY = re.compile(r"^(?P<values>[^\[]+), \[(?P<base>\w+)(?:, (?P<index>[^\]]+))?\](?P<after>!|, \S+)?$")
_STORES = ("str", "stp", "stur", "stlr", "stnp")


def register(operand: str) -> str:
    """w3 is the lower half of x3."""
    found = _REGISTER.match(operand)
    return f"x{found[1]}" if found else operand


def word_at(start: str, offset: int | None) -> str:
    """The word that lies *offset* bytes behind *start*; an offset that is not known is an index into the body."""
    if start in POINTERS or start == FENCE:
        return start
    if offset is None or start == BODY:
        return BODY
    return {0: IDENTITY, 8: CONTROL}.get(offset + (8 if start == CONTROL else 0), BODY)


def immediate(operand: str | None) -> int | None:
    """The number in an operand such as ``#0x8``; no operand is 0."""
    if operand is None:
        return 0
    return int(operand[1:], 0) if operand.startswith("#") else None


class Step(NamedTuple):
    """What an instruction does to the page: an event for the automata, or nothing; and the registers after it."""

    event: str | None
    registers: Registers


def step(instruction: Instruction, registers: Registers) -> Step:
    """Follow *instruction*."""
    name, operands = instruction.name, instruction.operands
    pointing = dict(registers)
    if name == "bl" or name == "blr" or instruction.called:
        kept = {reg: word for reg, word in pointing.items() if int(reg[1:]) >= 19}
        return Step(f"call {instruction.called or operands}", frozenset(kept.items()))
    if name == "dmb":
        return Step(f"fence {operands}", registers)
    if name == "isb":
        return Step("isb", registers)
    if memory := _MEMORY.match(operands):
        return _step_memory(name, memory, pointing)
    target, *sources = operands.split(", ")
    event = "counter" if name == "mrs" and "cntvct_el0" in operands else None
    word = None
    if name == "mov" and sources[0] in pointing:
        word = pointing[sources[0]]
    elif name == "add" and len(sources) == 2 and target.startswith("x"):
        first, second = sources
        if first in pointing:
            word = word_at(pointing[first], immediate(second))
        elif second in pointing:
            word = BODY
    if not name.startswith(("b", "cb", "tb", "cmp", "tst", "ret", "nop")):
        pointing.pop(register(target), None)
        if word:
            pointing[target] = word
    return Step(event, frozenset(pointing.items()))


def _step_memory(name: str, memory: "re.Match[str]", pointing: dict[str, str]) -> Step:
    values = memory["values"].split(", ")
    base, word = memory["base"], pointing.get(memory["base"])
    event = None
    if word and word not in POINTERS:
        touched = word if memory["after"] and memory["after"] != "!" else word_at(word, immediate(memory["index"]))
        kind = "store" if name.startswith(_STORES) else "load"
        ordered = {"stlr": " release", "ldar": " acquire", "ldapr": " acquire"}.get(name, "")
        whole = all(value.startswith("x") for value in values)
        event = f"{kind}{ordered} {touched}" if whole else f"{kind} of {memory['values']}, not a word, {touched}"
    if not name.startswith(_STORES):
        offset = immediate(memory["index"])
        for position, value in enumerate(values):
            pointing.pop(register(value), None)
            if offset is not None and (target := POINTERS.get(word or "", {}).get(offset + 8 * position)):
                pointing[value] = target
    if memory["after"] and word:
        pointing[base] = BODY
    return Step(event, frozenset(pointing.items()))


def next_addresses(function: Function, address: int) -> Iterator[int]:
    """Where the function may go on after *address*; nowhere when it returns."""
    name, operands, called = function[address]
    if name in ("ret", "br") or (name == "b" and called):
        return
    if name == "b" or name.startswith(("b.", "cb", "tb")):
        target = operands.split(" <")[0].split(", ")[-1]
        yield int(target, 16)
        if name == "b":
            return
    yield address + 4


# The two protocols as automata: from a state and an event to a state, or to a complaint.

Automaton = Callable[[str, str], str]


class OutOfOrderError(Exception):
    """The object code does in some path what the protocol forbids."""


def writing(state: str, event: str) -> str:
    """idle, odd (marked as being written), open (and fenced), done."""
    match state, event:
        case "idle" | "done", _ if event.startswith("call"):
            return state
        case _, _ if event.startswith("call"):
            raise OutOfOrderError(f"{event} inside the commit")
        case _, _ if "not a word" in event:
            raise OutOfOrderError(event)
        case "idle", "store control word" | "store release control word":
            return "odd"
        case "odd", "fence ish" | "fence sy":
            return "open"
        case "odd", "store body" | "store identity":
            raise OutOfOrderError("the body is stored with no full fence after the odd control word")
        case "open", "store body" | "store identity":
            return "open"
        case "open", "store release control word":
            return "done"
        case "open", "store control word":
            raise OutOfOrderError("the last store of the control word is not a release")
        case "open" | "odd", "return":
            raise OutOfOrderError("returns with an odd control word")
        case _, _ if event.startswith("store"):
            raise OutOfOrderError(f"{event} in state {state}")
    return state


def reading(state: str, event: str) -> str:
    """idle, first (the control word is loaded), loading (the body), isb, counted, marked, fenced, done.

    marked: the marker of the device's page is loaded.
    """
    match state, event:
        case _, _ if "not a word" in event or event.startswith("store"):
            raise OutOfOrderError(event)
        case "loading" | "isb" | "counted" | "marked" | "fenced", _ if (
            event.startswith("call") or event == "return"
        ):
            raise OutOfOrderError(f"{event} before the control word is compared")
        case "idle" | "first" | "done", "load acquire control word":
            return "first"
        case "first" | "loading", "load body" | "load identity":
            return "loading"
        case _, "load body" | "load identity":
            raise OutOfOrderError(f"the body is loaded in state {state}: no acquire before it, or a fence already")
        case "loading", "isb":
            return "isb"
        case "isb", "counter":
            return "counted"
        case _, "counter":
            raise OutOfOrderError(f"the counter is read in state {state}, not after the body and an isb")
        case "counted", "load fence":
            return "marked"
        case _, "load fence":
            raise OutOfOrderError(f"the device's marker is read in state {state}, not after the counter")
        case "loading" | "counted" | "marked", "fence ishld" | "fence ish" | "fence sy":
            return "fenced"
        case "fenced", "load control word":
            return "done"
        case "loading" | "counted" | "marked", "load control word":
            raise OutOfOrderError("the control word is loaded again with no fence after the body")
    return state


def follow(function: Function, automaton: Automaton, **arguments: str) -> set[str]:
    """The states that *automaton* reaches on the paths through *function*.

    *arguments* are the registers of those arguments that point at something; by itself the first, at the page.

    Raises:
        OutOfOrderError: on some path the order is wrong.
    """
    start: Registers = frozenset((arguments or {"x0": IDENTITY}).items())
    waiting = [(min(function), start, "idle")]
    seen = set(waiting)
    while waiting:
        address, registers, state = waiting.pop()
        event, after = step(function[address], registers)
        if event:
            state = automaton(state, event)
        following = list(next_addresses(function, address))
        if not following or any(target not in function for target in following):
            automaton(state, "return")  # it returns, or branches to another function, which returns for it
        for target in following:
            place = (target, after, state)
            if target in function and place not in seen:
                seen.add(place)
                waiting.append(place)
    return {state for _, _, state in seen}


_COUNTER = re.compile(
    r"isb \nmrs (?P<ticks>x\d+), cntvct_el0\neor (?P<zero>x\d+), (?P=ticks), (?P=ticks)\n"
    r"add (?P<address>x\d+), sp, (?P=zero)\nldr xzr, \[(?P=address)\]\n"
)


def reads_counter_in_order(function: Function) -> bool:
    """Whether every reading of the counter has an isb before and a load that depends on it after."""
    text = "".join(f"{name} {operands}\n" for name, operands, _ in function.values())
    readings = text.count("cntvct_el0")
    return readings > 0 and len(_COUNTER.findall(text)) == readings
