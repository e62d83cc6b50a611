"""Programs in a mount namespace of their own, where they see other files."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

__all__ = ("in_container", "in_own_mounts")


_HIDDEN: Final = ("/tmp", "/var/tmp", "/dev/shm", "/proc/sys")
_CONTAINER: Final = """\
mount --bind "$directory" /mnt
mount -t tmpfs none /run
mkdir /run/vmclock-async
mount --bind /mnt /run/vmclock-async
mount -o "remount,bind,$mode" /run/vmclock-async
umount /mnt
for place in $hidden; do mount -t tmpfs -o ro,mode=0 none $place; done
for place in / /run /tmp; do ! mountpoint -q $place || mount -o remount,bind,ro $place; done
for place in / /run /tmp /dev/shm; do if touch $place/x 2>/dev/null; then exit 3; fi; done
PATH=
"""


def in_container(directory: Path, *, writable: bool) -> list[str]:
    """A command line for a program that sees what a container sees which has *directory* at /run/vmclock-async.

    Its root is read-only. There is no place for temporary files, no /proc/sys, and no program that could be found by
    its name. Only root can run it, and is still root there. A checkout in /tmp keeps what it can read there.
    """
    needed = [Path(sys.executable), Path(__file__)]
    hidden = [place for place in _HIDDEN if not any(file.is_relative_to(place) for file in needed)]
    variables = [f"directory={directory}", f"mode={'rw' if writable else 'ro'}", f"hidden={' '.join(hidden)}"]
    python = [sys.executable, "-W", "error"]
    return ["env", *variables, "unshare", "--mount", "sh", "-ec", f'{_CONTAINER}exec "$@"', "sh", *python]


def in_own_mounts(*commands: str, own_processes: bool = False) -> list[str]:
    """A command line for *commands* of a shell and a program, in their own mount namespace; or the test is skipped.

    With *own_processes* no others are in the /proc that they may mount.
    """
    unshared = ["unshare", "--map-root-user", "--mount"]
    probed = "mount -t tmpfs none /mnt"
    if own_processes:
        unshared += ["--pid", "--fork", "--kill-child"]
        probed += "; mount -t proc none /proc"
    probe = [*unshared, "sh", "-ec", probed]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user (unprivileged_userns_clone, or a seccomp filter)")
    return [*unshared, "sh", "-ec", "\n".join([*commands, 'exec "$@"']), "sh", sys.executable, "-W", "error"]
