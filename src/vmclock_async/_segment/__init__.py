"""The segment, from a path to whole snapshots and commits. Invariants: ``vmclock_async.segment``."""
