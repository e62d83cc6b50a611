"""Tests that measure time, and so need a counter that keeps its rate."""

import pytest

from vmclock_async.timebase import counter_unfit_because

_reason = counter_unfit_because()
fit = pytest.mark.skipif(_reason is not None, reason=str(_reason))
"""Where the counter is unfit, nothing may measure with it, and nothing that can be installed mends that."""
