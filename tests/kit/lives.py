"""What a clock sees of a machine that goes on, and of one that is restored: looks at generation and marker."""

import anyio
import anyio.lowlevel
import pytest

from vmclock_async import (
    Clock,
    SegmentWriter,
    VMClockBody,
)
from vmclock_async.testing import make_body

OWN = 2**32
"""By how much a disruption of the publisher's own moves the marker."""


Look = tuple[int | None, int]
"""Generation and disruption marker, as a page has them."""


SAME_LIFE = [
    pytest.param([(7, 1), (None, 1), (7, 1)], id="loses-its-generation-for-a-commit"),
    pytest.param([(7, 1), (None, 0), (7, 1)], id="begins-afresh"),
    pytest.param([(7, 1), (None, 0), (None, 1), (7, 1)], id="begins-afresh-and-has-its-marker-first"),
    pytest.param([(7, 1), (None, 0), (7, 2)], id="begins-afresh-after-a-migration"),
    pytest.param([(None, 1), (None, 0), (None, 1)], id="begins-afresh-without-a-generation"),
    pytest.param([(None, 1 + OWN), (None, 0), (None, 1)], id="begins-to-count-its-own-disruptions-afresh"),
    pytest.param([(None, 1), (None, 1 + OWN), (None, 1 + 2 * OWN)], id="disruptions-of-the-publishers-own"),
    pytest.param([(7, 1), (None, 1 + OWN), (7, 1 + OWN)], id="loses-its-generation-in-a-disruption-of-its-own"),
    pytest.param([(None, 1), (7, 1)], id="learns-its-generation"),
    pytest.param([(None, 1), (7, 1), (None, 1), (7, 1)], id="learns-and-loses-it"),
    pytest.param([(7, 1), (7, 2), (7, 0), (7, 3)], id="migrations"),
]


ONE_RESTORE = [
    pytest.param([(7, 1), (8, 2)], id="a-restore"),
    pytest.param([(7, 1), (8, 1)], id="a-restore-without-a-disruption"),
    pytest.param([(7, 1), (None, 1), (8, 1)], id="while-the-generation-was-lost"),
    pytest.param([(7, 1), (None, 0), (None, 0), (8, 2)], id="while-the-page-began-afresh"),
    pytest.param([(7, 1), (None, 2), (8, 2)], id="told-by-the-marker-first"),
    pytest.param([(7, 1), (None, 2), (7, 2)], id="a-disruption-that-may-be-one"),
    pytest.param([(None, 0), (None, 1)], id="the-first-disruption-of-a-machine"),
    pytest.param([(None, 1), (None, 0), (None, 2)], id="by-the-marker-while-the-page-began-afresh"),
    pytest.param([(None, 1), (8, 2)], id="along-with-a-first-generation"),
    pytest.param([(None, 1), (None, 2 + OWN)], id="along-with-a-disruption-of-the-publishers-own"),
]


def looking(look: Look) -> VMClockBody:
    """A sound body with the generation and marker of *look*."""
    generation, marker = look
    return make_body(vm_generation_counter=generation, disruption_marker=marker)


async def told(clock: Clock, writer: SegmentWriter, body: VMClockBody) -> None:
    """Commit *body*, and let what waits on the clock see it and wait again."""
    waits = clock.statistics().waits
    writer.write(body)
    while clock.statistics().waits == waits:
        await anyio.sleep(0.001)
