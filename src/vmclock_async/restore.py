"""What a program does about a restore of its machine from a snapshot.

* ``reseed_python`` gives new seeds to the random generators that clones share.
"""

from vmclock_async._restoring.reseeding import register_reseed, reseed_python

__all__ = ("register_reseed", "reseed_python")

for _name in __all__:
    globals()[_name].__module__ = __name__
