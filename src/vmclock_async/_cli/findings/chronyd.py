"""chronyd: where it answers, whether it is synchronized, its version, and the library that asks it."""

import os
import re
import shutil
import subprocess
from importlib import metadata
from ipaddress import ip_address
from typing import Final

from vmclock_async._cli.findings.finding import Finding, Level, missing, ok, refused, warning
from vmclock_async._cli.findings.machine import Machine
from vmclock_async.errors import SourceError

__all__ = ("chrony_port", "chrony_socket", "chronyd_version", "pychrony")

_START: Final = "install and start chronyd: apt-get install chrony, systemctl start chronyd"
_FORGETS_BEFORE: Final = (4, 7)
"""The first chronyd that, started with -x, no longer forgets an offset that makestep orders it to step."""


def chrony_socket(machine: Machine) -> Finding:
    """chronyd by its Unix socket."""
    if not os.path.isdir(machine.chrony_socket.parent):
        return missing(f"no {machine.chrony_socket}", _START)
    return _answer(machine, str(machine.chrony_socket), absent=f"no answer at {machine.chrony_socket}")


def chrony_port(machine: Machine) -> Finding:
    """chronyd by its command port, which serves everybody in the same network namespace."""
    return _answer(machine, machine.chrony_port, absent=f"no answer at {machine.chrony_port}")


def _answer(machine: Machine, address: str, *, absent: str) -> Finding:
    probed = machine.probing.outcome("chrony", address=address)
    if isinstance(probed, SourceError):
        if "no answer" in probed.reason or "has not ended" in probed.reason:
            return missing(absent, f"{_START}; or name its address: --set chrony.address=ADDRESS")
        # chronyd may be there, but this user may not ask it; or the counter is unfit, or pychrony is not installed.
        return refused(probed, Level.WARNING if machine.counter_unfit_because() is None else Level.MISSING)
    reference = re.search(r", synchronized to (.+)$", probed)
    if reference is None:
        return warning(probed, "see that a server answers (chronyc -n sources), and wait until it is selected")
    if _is_reference_clock(reference[1]):
        return warning(
            f"{probed}, a reference clock whose own error chronyd does not know",
            "say how far it can be off, in seconds: --set chrony.reference_error=SECONDS, or name a file that says it "
            "in nanoseconds: --set chrony.reference_error_path=FILE",
            time_from="chrony",
        )
    return ok(probed, time_from="chrony")


def _is_reference_clock(reference: str) -> bool:
    """Whether *reference* is the name of a refclock, because servers are named by their addresses."""
    try:
        ip_address(reference)
    except ValueError:
        return True
    return False


def chronyd_version(machine: Machine) -> Finding:
    """The version of the installed chronyd; one that runs elsewhere may be another."""
    program = shutil.which("chronyd", path=machine.search_path)
    if program is None:
        return missing("chronyd is not installed here", _START)
    try:
        said = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=machine.probing.left_s,
            check=False,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError) as exc:
        return warning(f"{program} --version failed ({exc})", "run it by hand")
    version = re.search(r"version (\d+)\.(\d+)", said)
    if version is None:
        return warning(f"{program} --version said {said[:80]!r}", "run it by hand")
    found = f"{program} {version[1]}.{version[2]}"
    if (int(version[1]), int(version[2])) >= _FORGETS_BEFORE:
        return ok(found)
    if _runs_without_control(machine):
        return warning(
            f"{found} runs with -x: it forgets an offset that makestep orders it to step, and the bound grows by that",
            "remove makestep from chrony.conf, or install chronyd 4.7 or later",
        )
    return ok(f"{found}, older than 4.7: do not use makestep with -x")


def _runs_without_control(machine: Machine) -> bool:
    """Whether a chronyd runs here that was started with -x, which may not change the system's clock."""
    try:
        entries = os.listdir(machine.proc)
    except OSError:
        return False
    for entry in entries:
        if entry.isdecimal():
            try:
                if (machine.proc / entry / "comm").read_bytes().strip() == b"chronyd":
                    words = (machine.proc / entry / "cmdline").read_bytes().split(b"\0")[1:]
                    if any(re.fullmatch(rb"-[A-Za-z0-9]*x[A-Za-z0-9]*", word) for word in words):
                        return True
            except OSError:  # it has ended, or may not be seen
                continue
    return False


def pychrony(machine: Machine) -> Finding:
    """The library that asks chronyd, and the versions of it that are supported."""
    try:
        version = metadata.version("pychrony")
    except metadata.PackageNotFoundError:
        return missing("pychrony is not installed", "pip install 'vmclock-async[chrony]'")
    supported = _supported()
    least, below = re.search(r">=([\d.]+)", supported), re.search(r"<([\d.]+)", supported)
    if (least and _numbers(version) < _numbers(least[1])) or (below and _numbers(version) >= _numbers(below[1])):
        return warning(f"pychrony {version} is not supported", f"pip install '{supported}'")
    return ok(f"pychrony {version}")


def _supported() -> str:
    """The requirement that this distribution has of pychrony."""
    try:
        requirements = metadata.requires("vmclock-async") or []
    except metadata.PackageNotFoundError:  # the package runs from a directory that was not installed
        requirements = []
    return next(
        (text.partition(";")[0].strip() for text in requirements if text.startswith("pychrony")), "pychrony"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
