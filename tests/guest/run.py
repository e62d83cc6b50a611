"""Boots the guest, lets it check, migrates it when it asks for that, and tells the result."""

import argparse
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from guest import initramfs
from guest.machine import Machine, MachineError
from guest.packages import PackageError, Packages

QEMU: Final = [
    f"{name}/bookworm-backports"
    for name in ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
]
PYTHON: Final = ["python3.11/bookworm", "busybox-static/bookworm"]
KERNELS: Final = {
    "7": ["linux-image-cloud-amd64/trixie-backports"],
    "6.1": ["linux-image-amd64/bookworm"],
    "6.16": ["linux-image-6.16.12+deb13-cloud-amd64/trixie-backports"],
}
CHECKS: Final = {False: ("guest.checks", "guest.restores", "guest.ptp_clock"), True: ("guest.restores",)}
"""The checks of a guest without the driver (Linux 6.1) or with it."""
LIMIT_S: Final = 600.0

_log: Final = logging.getLogger("guest")


def main() -> int:
    """Exit status 0: all checks passed; 1: one did not, or the guest could not be run."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="make guest-test", description=__doc__)
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="7", help="Debian's newest 7.x, 6.16, or 6.1")
    kernel = parser.parse_args().kernel
    if sys.version_info[:2] != (3, 11):
        _log.error("the guest has Python 3.11, and .venv another: make clean guest-test PYTHON=python3.11")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that QEMU is ended, too
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vmclock-async-guest")
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="vmclock-guest-") as directory:
            return _run(Packages(cache), kernel, Path(directory))
    except (MachineError, PackageError, OSError, subprocess.SubprocessError) as exc:
        _log.error("%s", exc)
        return 1


def _run(packages: Packages, kernel: str, directory: Path) -> int:
    began = time.monotonic()
    qemu = packages.unpacked("qemu", QEMU)
    debian = packages.unpacked("python", PYTHON)
    image, modules = initramfs.kernel_in(packages.unpacked(f"kernel-{kernel}", KERNELS[kernel], only="linux-"))
    _log.info("building the initramfs")
    archive = directory / "initramfs"
    initramfs.build(archive, debian=debian, modules=modules, checks=CHECKS[kernel == "6.1"])
    _log.info("booting %s with an initramfs of %.0f MB", modules.name, archive.stat().st_size / 1e6)
    booted = time.monotonic()
    with Machine(qemu=qemu, kernel=image, initramfs=archive, directory=directory) as machine:
        sys.stdout.write(f"QEMU: {machine.version()}\n")
        status = _follow(machine)
        if status is None:
            _log.error("the guest ended without a result; its console:\n%s", machine.console[-4000:])
    ended = time.monotonic()
    verdict = "passed" if status == 0 else "FAILED"
    sys.stdout.write(f"{verdict}: {ended - booted:.0f} s in the guest, {ended - began:.0f} s in all\n")
    return 0 if status == 0 else 1


def _follow(machine: Machine) -> int | None:
    """Pass on what the guest says and do what it asks for; its checks' exit status, None if there is none."""
    status: int | None = None
    restored_at, lives = 0.0, list[str]()
    for line in machine.lines(LIMIT_S):
        match line.split():
            case ["@migrate"]:
                _log.info("migrated in %.1f s", machine.migrate())
            case ["@write", offset, data]:
                machine.write(int(offset, 0), bytes.fromhex(data))
            case ["@snapshot"]:
                machine.save()
                machine.restore()
                restored_at, lives = time.monotonic(), []
            case ["@called", life]:
                took_ms = (time.monotonic() - restored_at) * 1000
                lives.append(life)
                sys.stdout.write(f"     life {len(lives)}: called {took_ms:.0f} ms after the restore, {life}\n")
                if len(lives) == 1:
                    machine.restore()
                    restored_at = time.monotonic()
                elif len(set(lives)) < len(lives):
                    _log.error("two lives of one snapshot share an incarnation")
                    status = 1
            case ["@end", code]:
                status = status or int(code)
            case _:
                sys.stdout.write(re.sub(r"[^\x20-\x7e]", "?", line) + "\n")
                sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
