"""The way of an update from a source to a commit. The whole of it: ``vmclock_async.publisher``."""
