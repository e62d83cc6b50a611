"""The command line as a process in other surroundings: as another user, or where other file systems are mounted."""

import ctypes
import importlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from kit.commands import environment
from kit.forks import Forked

__all__ = ("ORDINARY", "may_mount", "start_elsewhere")

ORDINARY: Final = 65534
"""The number of a user who is not root."""
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_LATER: Final = (
    "anyio._backends._asyncio",
    "concurrent.futures.thread",
    "encodings.idna",
    "prometheus_client",
    "pychrony",
    "vmclock_async.metrics",
)
"""What commands import while they run: another user may not be able to read it."""


def start_elsewhere(
    runtime: Path,
    *args: object,
    mounts: str = "",
    afterwards: str = "",
    user: int | None = None,
    variables: Mapping[str, str] | None = None,
    **how: Any,
) -> Forked:
    """Start the command line with *args* as *user*, after the shell's commands *mounts* in mounts of its own.

    Once it has ended, the shell's commands *afterwards* are run there.
    """
    words = [mounts, afterwards, "" if user is None else str(user), *map(str, args)]
    return Forked(_run, *words, env=environment(runtime, variables), **how)


def may_mount() -> None:
    """Skip the test where this user may have no mounts of its own."""
    with Forked(_try_mount, env=dict(os.environ), stderr=subprocess.DEVNULL) as process:
        if process.wait(30):
            pytest.skip("no mount namespaces for this user (unprivileged_userns_clone, or a seccomp filter)")


def _try_mount() -> None:
    _mount("mount -t tmpfs none /mnt")


def _run(mounts: str, afterwards: str, user: str, *words: str) -> int:
    from vmclock_async._cli import main

    becomes_another = bool(user) and os.geteuid() == 0
    if becomes_another:
        for name in _LATER:
            importlib.import_module(name)
    if mounts:
        _mount(mounts)
    if becomes_another:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    status = main(list(words))
    if afterwards:
        _shell(afterwards)
    return status


def _mount(commands: str) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS if uid == 0 else _CLONE_NEWNS | _CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _shell(f"mount --make-rprivate /; {commands}")


def _shell(commands: str) -> None:
    subprocess.run(["/bin/sh", "-ec", commands], check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
