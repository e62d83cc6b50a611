"""Runs the tests where it is hardest to pass: ``make test-adverse``.

In random order, on processors that others keep busy, without a terminal, with SIGINT ignored, far from UTC, in the
plainest locale, and on a machine that has just booted: the core is built to count from about now. All that in a copy
of the checkout. Root runs them by turns as an ordinary user and as itself.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from vmclock_async import _core

CHECKOUT: Final = Path(__file__).parent.parent
ORDINARY: Final = 65534
"""The user nobody, who owns nothing else."""
_BUSY: Final = CHECKOUT / "tests/programs/busy.py"
_NOT_HANDED_DOWN: Final = ("CI", "PYTHONPATH", "LOGNAME", "USER", "LNAME", "USERNAME")
LONGEST_S: Final = 1800
"""A round that takes longer is none: whatever was started for it ends by itself."""


@contextmanager
def busy_processors() -> Iterator[None]:
    """Keeps each processor busy for the length of the block, and no longer than a round."""
    with ExitStack() as stack:
        for processor in os.sched_getaffinity(0):
            process = subprocess.Popen([sys.executable, _BUSY, str(LONGEST_S)])
            os.sched_setaffinity(process.pid, {processor})
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def readable_python() -> str:
    """An interpreter that an ordinary user may run: this one, or the system's."""
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    library = Path(sysconfig.get_path("stdlib"))
    ways = {*base.parents, *library.parents, library}
    return str(base) if all(way.stat().st_mode & 0o5 == 0o5 for way in ways) else "/usr/bin/python3"


def set_up(copy: Path) -> None:
    """A copy of the checkout with an environment of its own, whose core begins to count about now."""
    hidden = shutil.ignore_patterns(
        ".venv", ".git", ".headers", "build", "*.so", "__pycache__", ".*_cache", "*.egg-info"
    )
    shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=hidden)
    shift = f"CORE_CFLAGS=-DVMCLOCK_COUNTER_SHIFT={2**64 - _core.counter()}u"
    subprocess.run(
        ["make", "-C", copy, f"PYTHON={readable_python()}", shift, ".venv/installed-test", ".venv/ntpsec"],
        check=True,
    )


def say(text: str) -> None:
    """Print *text* at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def run_round(copy: Path, seed: int, user: int) -> str:
    """Run the tests once, in the order of *seed*, as *user*; the closing line."""
    home = copy.parent / f"home-{user}"
    home.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(home, user, user)
    command = [copy / ".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto"]
    command += ["--dist", "worksteal", "--random-order-bucket=global", f"--random-order-seed={seed}"]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_DOWN}
    environment |= {"HOME": str(home), "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "examples")}
    environment |= {"TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each child would compile every module again
    as_user = {"user": user, "group": user, "extra_groups": []} if os.geteuid() == 0 else {}
    pytest = subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        **as_user,  # type: ignore[call-overload]
    )
    line = ""
    assert pytest.stdout is not None
    with pytest:
        for line in pytest.stdout:
            say(line)
    return line.strip() if pytest.returncode == 0 else f"{line.strip()}; exit status {pytest.returncode}"


def main(rounds: int) -> int:
    """Run as many rounds, and print how each of them closed; 1 if one failed."""
    users = [ORDINARY, 0] if os.geteuid() == 0 else [os.geteuid()]
    first_seed = random.randrange(10**6)
    closing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vmclock-adverse-") as place:
        copy = Path(place, "checkout")
        set_up(copy)
        if os.geteuid() == 0:
            os.chmod(place, 0o755)
            subprocess.run(["chown", "-R", f"{ORDINARY}:{ORDINARY}", copy], check=True)
        with busy_processors():
            for number in range(rounds):
                seed, user = first_seed + number, users[number % len(users)]
                began = time.monotonic()
                say(f"Round {number + 1} of {rounds}: seed {seed}, user {user}\n")
                said = run_round(copy, seed, user)
                closing.append(f"seed {seed}, user {user}, {time.monotonic() - began:.0f} s: {said}")
    say("\n".join(["", *closing, ""]))
    return int(any("exit status" in line for line in closing))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
