"""What a segment looks like that was written before this machine booted."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

BOOT_ATTRIBUTE = "user.vmclock_async.boot_id"
ANOTHER_BOOT = b"01234567-89ab-4cde-8f01-23456789abcd"


def require_attributes(path: Path) -> None:
    """Skip the test where the file system of *path* keeps no attributes of users."""
    try:
        os.setxattr(path, "user.tried", b"")
        os.removexattr(path, "user.tried")
    except OSError as exc:
        pytest.skip(f"this file system keeps no attributes of users (tmpfs: since Linux 6.6): {exc.strerror}")


def forget_boot(path: Path) -> None:
    """Nothing is kept with the file but its time, as where a writer cannot keep its boot_id."""
    with suppress(OSError):
        os.removexattr(path, BOOT_ATTRIBUTE)


def age_by_a_boot(path: Path) -> None:
    """The file at *path* is of an earlier boot, by its time; that is all there is to go by on any file system."""
    forget_boot(path)
    os.utime(path, (1, 1))
