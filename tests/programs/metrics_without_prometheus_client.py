"""Runs the command line with these arguments where prometheus-client is not installed."""

import sys

for name in [name for name in sys.modules if name.startswith(("prometheus_client", "vmclock_async.metrics"))]:
    del sys.modules[name]  # a forked process has them already
sys.modules["prometheus_client"] = None  # type: ignore[assignment]

from vmclock_async._cli import main

sys.exit(main(sys.argv[1:]))
