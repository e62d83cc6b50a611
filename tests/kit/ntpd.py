"""A real ntpd, ntpsec's, in a network of its own, where port 123 is free and the system's clock is out of its reach.

ntpd serves at port 123 alone, and steers the kernel's clock where it may. In a user namespace it may not, and ours
looks for the server in the same network.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kit.programs import path_of

__all__ = ("asking_ntpd", "needs_ntpd")

_ROOT: Final = Path(__file__).parents[2]
_UNPACKED: Final = _ROOT / ".venv" / "ntpsec" / "usr" / "sbin" / "ntpd"

needs_ntpd = pytest.mark.skipif(not _UNPACKED.exists(), reason="ntpsec is not unpacked; run make .venv/ntpsec")


def asking_ntpd() -> "subprocess.Popen[str]":
    """The program ``ask_ntpd`` with that ntpd, started; killed with it. Or the test is skipped."""
    unshared = ["unshare", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*unshared, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces for this user (unprivileged_userns_clone, or a seccomp filter)")
    command = [*unshared, sys.executable, "-W", "error", path_of("ask_ntpd"), str(_UNPACKED)]
    environment = os.environ | {"PYTHONPATH": str(_ROOT / "tests")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
