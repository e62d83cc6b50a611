"""The way from a snapshot to a reading, and waiting for one. The whole of it: ``vmclock_async.clock``."""
