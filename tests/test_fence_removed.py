"""A fence whose path is gone: what is known of it, and what a clock then gives."""

import subprocess
import time

import anyio
import pytest

from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.readings import readings
from kit.told_world import World, device_page
from kit.waits import BOUND_S
from vmclock_async import Clock, ClockDisruptedError, LeaseLostError


def test_deleted_fence_gives_no_reading_until_another_is_there(world: World, fenced: Clock) -> None:
    """A deleted file shows no disruption any more, so a time is refused; a new file at the path is the fence again."""
    world.device.unlink()
    for _ in range(2):
        with pytest.raises(ClockDisruptedError, match=r"the fence, .*/vmclock0, was deleted, .*; put it back"):
            fenced.now()
    assert fenced.fenced
    assert fenced.snapshot().body.disruption_marker == 1  # the page itself is there
    world.device.write_bytes(device_page(1))
    readings(fenced)
    world.device_says(2)
    with pytest.raises(ClockDisruptedError, match="marker is 2"):
        fenced.now()


def test_fence_that_is_replaced_by_no_page_gives_no_reading(world: World, fenced: Clock) -> None:
    """What took the place of the fence shows nothing, and the former file is deleted all the same."""
    other = world.device.with_name("other")
    other.write_bytes(b"no page")
    other.replace(world.device)
    with pytest.raises(ClockDisruptedError, match="was deleted"):
        fenced.now()


@pytest.mark.long
def test_deletion_of_the_fence_is_seen_within_a_second(world: World, fenced: Clock) -> None:
    """The compiled core, which reads the mapped pages by itself, looks at the path after a second at the latest."""
    readings(fenced)
    world.device.unlink()
    began = time.monotonic()
    with pytest.raises(ClockDisruptedError):  # noqa: PT012
        while True:
            asked = time.monotonic()
            fenced.now()
            assert asked < began + 1.1, "asked after a second, it gave a time without a fence"


@pytest.mark.anyio
async def test_lease_ends_once_its_fence_is_deleted(world: World, fenced: Clock) -> None:
    """A lease rests on the fence too."""
    with anyio.fail_after(BOUND_S), pytest.raises(LeaseLostError, match="was deleted"):  # noqa: PT012
        async with fenced.lease(500):
            world.device.unlink()
            await anyio.sleep_forever()


def test_fence_behind_a_closed_bind_mount_goes_on(world: World) -> None:
    """A path that leads to the fence no longer, as in a container, is no reason to refuse while the file has a name."""
    device, mounted = world.device, world.device.with_name("mounted")
    mounted.touch()
    command = in_own_mounts(f"mount --bind {device} {mounted}")
    output = subprocess.check_output(
        [*command, path_of("fence_behind_mount"), str(world.path), str(mounted), str(device)], text=True
    )
    assert output == "told\nrefused: the device's disruption marker is 2\n"
