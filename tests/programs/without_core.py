"""Import the package without its core."""

import sys

sys.modules["vmclock_async._core"] = None  # type: ignore[assignment]
try:
    import vmclock_async  # noqa: F401
except ImportError as error:
    print(error)
