"""Where readers look for the segment when no path is given."""

import os
import warnings
from pathlib import Path
from typing import Final

__all__ = ("SEGMENT_VARIABLE", "SYSTEM_PATH", "default_path", "user_path")

SEGMENT_VARIABLE: Final = "VMCLOCK_ASYNC_SEGMENT"
SYSTEM_PATH: Final = Path("/run/vmclock-async/shm0")


def default_path() -> Path:
    """Where a publisher of this machine, or of this user, puts its segment."""
    if variable := os.environ.get(SEGMENT_VARIABLE):
        return Path(variable)
    return SYSTEM_PATH if SYSTEM_PATH.exists() else user_path()


def user_path() -> Path:
    """In the user's runtime directory."""
    import platformdirs  # not at import: most name their path

    with warnings.catch_warnings(action="ignore"):  # that it is not there: it will be made
        return Path(platformdirs.user_runtime_dir("vmclock-async")) / "shm0"
