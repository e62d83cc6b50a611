"""What systemd says of units that it does not run, and the part of their confinement that needs no systemd."""

import shutil
import subprocess
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import pytest

SYSTEMD_ANALYZE: Final = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(
    SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)"
)


def analyze(*args: object) -> str:
    """What ``systemd-analyze`` prints; it must succeed."""
    assert SYSTEMD_ANALYZE is not None
    done = subprocess.run([SYSTEMD_ANALYZE, *map(str, args)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def values(unit: str, name: str) -> list[str]:
    """The words of all lines *name*= in the text of a unit."""
    lines = [line.partition("=") for line in unit.splitlines()]
    return [word for key, _, value in lines if key == name for word in value.split()]


def allowed_calls(unit: str) -> set[str]:
    """The system calls that the unit's SystemCallFilter= allows, with its sets resolved by systemd."""
    sets: dict[str, list[str]] = {}
    for line in analyze("syscall-filter", "--no-pager").splitlines():
        word = line.strip()
        if line.startswith("@"):
            members = sets.setdefault(word, [])
        elif word and not word.startswith("#"):
            members.append(word)
    calls, waiting = set(), values(unit, "SystemCallFilter")
    while waiting:
        word = waiting.pop()
        if word.startswith("@"):
            waiting += sets[word]
        else:
            calls.add(word)
    return calls


def confined_command(unit: str, directory: Path, *words: str) -> list[str]:
    """Arguments for the program ``confined``, which runs *words* with the filters of *unit*."""
    with NamedTemporaryFile("w", dir=directory, prefix="calls-", encoding="ascii", delete=False) as calls:
        calls.write("\n".join(sorted(allowed_calls(unit))))
    return [calls.name, ",".join(values(unit, "RestrictAddressFamilies")), *words]
