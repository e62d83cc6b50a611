"""Random histories of a machine: what readers are promised holds through every one of them."""

import os
import random

import pytest
from hypothesis import given, settings, strategies as st

from kit.simulated_world import KINDS, Act, World, random_history

_ASKED = os.environ.get("VMCLOCK_ASYNC_HISTORIES")
pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("quiet_log"),
    *([pytest.mark.timeout(3600)] if _ASKED else []),
]

ACTS = st.builds(
    Act,
    kind=st.sampled_from(KINDS),
    source=st.integers(0, 1),
    at_once=st.booleans(),
    duration_ns=st.integers(1, 2 * 10**9) | st.integers(1, 1100 * 10**9),
    ppm=st.integers(-40, 40),
    error=st.integers(-100, 100),
    bound_ns=st.integers(0, 5_000_000),
    jump=st.integers(0, 2**64 - 1) | st.integers(-(10**12), 10**12),
)


@given(
    history=st.lists(ACTS, max_size=40),
    with_device=st.booleans(),
    device_tells_time=st.booleans(),
    utc_knows_offset=st.booleans(),
)
@settings(max_examples=400)
def test_promises_hold_through_any_history(
    history: list[Act], with_device: bool, device_tells_time: bool, utc_knows_offset: bool
) -> None:
    """Intervals contain true time, bodies nest, constants stay, no new marker comes with an old time."""
    world = World(with_device=with_device, device_tells_time=device_tells_time, utc_knows_offset=utc_knows_offset)
    world.run(history)


def test_promises_hold_through_many_histories() -> None:
    """The same at a pace that allows for 10**5 (``make stress``); here for a few hundred."""
    count = int(_ASKED or "500")
    given = 0
    for seed in range(count):
        world = World(with_device=seed % 4 > 0, device_tells_time=seed % 4 == 3, utc_knows_offset=seed % 8 < 4)
        try:
            world.run(random_history(random.Random(seed)))
        except AssertionError as exc:
            exc.add_note(f"history of seed {seed}")
            raise
        given += world.given
    assert given > count, "histories in which nobody is given a time prove nothing"
