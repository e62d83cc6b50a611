"""Become an ordinary user: permissions mean nothing to root.

A program that imports this has loaded what it needs by then: as somebody else it may not be able to read the
interpreter's own files.
"""

import os

from pydantic import BaseModel

import vmclock_async

for _name in vmclock_async.__all__:  # while it may be read; a model is completed on its first use otherwise
    _loaded = getattr(vmclock_async, _name)
    if isinstance(_loaded, type) and issubclass(_loaded, BaseModel):
        _loaded.model_rebuild()


def become_nobody(number: int = 65534) -> None:
    """Give up all privileges, where there are any, and be the user *number*."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(number)
        os.setuid(number)
