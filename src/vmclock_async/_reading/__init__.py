"""The steps from a snapshot to a reading, and waiting for a reading. Overview: ``vmclock_async.clock``."""
