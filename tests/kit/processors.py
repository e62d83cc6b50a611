"""Which processor a thread runs on."""

import os


class pinned_to_one_processor:
    """Keeps this thread on one processor for the length of the block."""

    def __enter__(self) -> None:
        self._allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._allowed)})

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._allowed)
