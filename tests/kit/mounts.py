"""Programs in a mount namespace of their own, where they see other files."""

import shutil
import subprocess
import sys

import pytest

__all__ = ("in_own_mounts",)


def in_own_mounts(*commands: str) -> list[str]:
    """A command line for *commands* of a shell and a program, in their own mount namespace; or the test is skipped."""
    unshared = ["unshare", "--map-root-user", "--mount"]
    probe = [*unshared, "sh", "-ec", "mount -t tmpfs none /mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user (unprivileged_userns_clone, or a seccomp filter)")
    return [*unshared, "sh", "-ec", "\n".join([*commands, 'exec "$@"']), "sh", sys.executable, "-W", "error"]
