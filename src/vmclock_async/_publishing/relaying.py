"""Relaying: a sole source of whole bodies is passed on verbatim.

A device, a captured page or a recording says all that there is to say. Where it is the only source and sends whole
bodies (``BodyUpdate.from_body``), each is committed bit for bit: body, constants, flags and values without a name.
No merging, no nesting, no ageing, no marker of the publisher's own, no closing commit: what readers see is what
the source saw. Beside another source it is one of several, and merged.

One thing cannot be passed on: VM_GEN_COUNTER_PRESENT of a page that ends before the generation counter. In the
segment there is room for one, and readers would take what is there for it; so the flag is cleared.
"""

from vmclock_async.abi import Flags
from vmclock_async.models import BodyUpdate, Contents, VMClockBody

__all__ = ("is_relayed", "relayed")


def is_relayed(update: BodyUpdate, *, sources: int) -> bool:
    """Whether *update*, from one of *sources* sources, is committed as it stands."""
    return update.verbatim and sources == 1


def relayed(contents: Contents, update: BodyUpdate) -> Contents:
    """*contents* as *update* makes them, verbatim."""
    contents = contents.updated(update)
    body = contents.body
    if body.vm_generation_counter is None and body.flags & Flags.VM_GEN_COUNTER_PRESENT:
        contents = contents.with_flags(VMClockBody(), Flags.VM_GEN_COUNTER_PRESENT)
    return contents
