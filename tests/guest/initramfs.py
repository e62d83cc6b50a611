"""The guest's files: Debian's Python, this package, what it needs from the virtual environment, the driver.

The kernel unpacks them from a cpio archive ("newc": Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import compileall
import lzma
import os
import shutil
import stat
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Final

from kit.distributions import copy_distribution, required_by

__all__ = ("build", "kernel_in")

_HERE: Final = Path(__file__).parent
_REPOSITORY: Final = _HERE.parents[1]
_LEFT_OUT: Final = ("etc", "var", "usr/share", "usr/sbin", "usr/lib/x86_64-linux-gnu/gconv")


def kernel_in(root: Path) -> tuple[Path, Path]:
    """The kernel's image and the directory of its modules, among what is unpacked in *root*."""
    image = next(path for name in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz") for path in root.glob(name))
    modules = next(path for name in ("lib/modules/*", "usr/lib/modules/*") for path in root.glob(name))
    return image, modules


def build(path: Path, *, debian: Path, modules: Path, checks: Sequence[str]) -> None:
    """Write the archive to *path*: *debian* is a tree with Python, *modules* the kernel's; *checks* are run there."""
    compileall.compile_dir(debian / "usr/lib/python3.11", quiet=2, stripdir=str(debian), prependdir="/")
    site = path.with_name("site")
    _fill(site)
    driver = next(modules.rglob("ptp_vmclock.ko*"), None)  # not before Linux 6.13
    with path.open("wb") as file:
        archive = _Cpio(file)
        archive.add_tree(debian, "")
        archive.add("opt", stat.S_IFDIR | 0o755)
        archive.add_tree(site, "opt/site")
        if driver is not None:
            data = driver.read_bytes()
            archive.add(
                "vmclock.ko", stat.S_IFREG | 0o644, lzma.decompress(data) if driver.suffix == ".xz" else data
            )
        archive.add("checks", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in checks).encode())
        archive.add("init", stat.S_IFREG | 0o755, (_HERE / "init.sh").read_bytes())
        archive.add("dev", stat.S_IFDIR | 0o755)
        archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        archive.add("TRAILER!!!", 0)


def _fill(site: Path) -> None:
    """Copy this package, from the working tree, and the distributions that it needs to *site*."""
    own = distribution("vmclock-async")
    for needed in (own, *required_by(own, "cli")):
        copy_distribution(needed, site)
    for package in (
        *(path for path in (_REPOSITORY / "src").glob("vmclock_*") if path.suffix != ".egg-info"),
        _HERE,
    ):
        shutil.copytree(package, site / package.name)
    compileall.compile_dir(site, quiet=2, stripdir=str(site), prependdir="/opt/site")  # else importing takes long


class _Cpio:
    """Writes an archive to *file*."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Final = file
        self._inode = 0

    def add(
        self, name: str, mode: int, data: bytes = b"", *, device: tuple[int, int] = (0, 0), mtime: int = 0
    ) -> None:
        self._inode += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self._inode, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        for part in (header, data):
            self._file.write(part + b"\0" * (-len(part) % 4))

    def add_tree(self, top: Path, name: str) -> None:
        status = top.lstat()
        data = b""
        if stat.S_ISLNK(status.st_mode):
            data = os.fsencode(top.readlink())
        elif stat.S_ISREG(status.st_mode):
            data = top.read_bytes()
        if name:
            self.add(name, status.st_mode, data, mtime=int(status.st_mtime))  # which Python's caches refer to
        if stat.S_ISDIR(status.st_mode):
            for path in sorted(top.iterdir()):
                inner = f"{name}/{path.name}".lstrip("/")
                if inner not in _LEFT_OUT:
                    self.add_tree(path, inner)
