"""The draw behind an incarnation: each ingredient alone keeps two clones apart, and nothing else goes into it."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from uuid import RFC_4122, UUID

import anyio
import pytest

from kit.stand_ins import compiled, preloaded
from kit.told_world import World
from kit.waits import until_waiting
from vmclock_async import Clock, Snapshot, _core
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.incarnation import Incarnation
from vmclock_async.testing import PlayedSegment
from vmclock_async.timebase import COUNTER_ID

RunScript = Callable[..., str]

ONE = Ingredients(bytes(32), bytes(32), 5, 7, 9, 1, 1)
OTHER = Ingredients(bytes([1] * 32), bytes([1] * 32), 6, 8, 10, 2, 2)
LESS = ONE._replace(processor=None, counter=None, generation=None)
"""Of a machine that lacks whatever a machine may lack."""
PLAYED = {"PLAYED_RANDOM": "3", "PLAYED_REALTIME_S": "1600000000", "PLAYED_PID": "77"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in for what the C library has of the ingredients."""
    return compiled("ingredients", tmp_path_factory.mktemp("ingredients"))


def test_each_combination_of_ingredients_has_a_draw_of_its_own() -> None:
    """Of 2**7 combinations no two give the same draw, also where ingredients are missing."""
    mixtures = {Ingredients._make(values).mix() for values in product(*zip(ONE, OTHER, strict=True))}
    assert len(mixtures) == 2 ** len(ONE)
    lacking = {Ingredients._make(values).mix() for values in product(*zip(ONE, LESS, strict=True))}
    assert len(lacking) == 2**3


def test_draw_of_equal_ingredients_is_equal() -> None:
    """Nothing but the ingredients goes into a draw: clones that share all of them share the draw."""
    assert Ingredients._make(ONE).mix() == ONE.mix()
    assert Ingredients._make(LESS).mix() == LESS.mix()


def drawn_twice(run_script: RunScript, library: Path, environment: dict[str, str], *played: str) -> set[str]:
    """What two processes draw, one after the other."""
    everywhere = {**preloaded(library), **environment}
    return {run_script("draw", 1, 1, *played, environment=everywhere) for _ in range(2)}


def test_two_processes_with_equal_ingredients_draw_the_same(run_script: RunScript, library: Path) -> None:
    """All that the machine gives is played, so that the draws are equal: the other tests here can fail."""
    assert len(drawn_twice(run_script, library, PLAYED, "counter", "processor")) == 1


@pytest.mark.parametrize("spared", ["PLAYED_RANDOM", "PLAYED_REALTIME_S", "PLAYED_PID", "counter", "processor"])
def test_one_ingredient_of_the_machine_keeps_two_processes_apart(
    run_script: RunScript, library: Path, spared: str
) -> None:
    """Whichever it is: all the others are equal. A processor without a generator of its own adds nothing."""
    environment = {name: value for name, value in PLAYED.items() if name != spared}
    drawn = drawn_twice(run_script, library, environment, *{"counter", "processor"} - {spared})
    has_it = spared != "processor" or _core.processor_random() is not None
    assert len(drawn) == (2 if has_it else 1)


@pytest.mark.parametrize("after", [(2, 1), (1, 2)], ids=["generation", "marker"])
def test_generation_or_marker_keeps_two_lives_apart(
    run_script: RunScript, library: Path, after: tuple[int, int]
) -> None:
    """A restore alone makes the difference, where all that the machine gives is as it was before."""
    environment = {**preloaded(library), **PLAYED}
    before, restored = (
        run_script("draw", *life, "counter", "processor", environment=environment) for life in ((1, 1), after)
    )
    assert before != restored


def test_processes_with_one_state_of_the_kernels_random_source_are_two_incarnations(
    world: World, run_script: RunScript, library: Path
) -> None:
    """Two clones that the kernel has not told apart yet: ``os.urandom`` gives both of them the same bytes."""
    environment = {**preloaded(library), "PLAYED_RANDOM": "3"}
    one, other = (UUID(run_script("incarnation", world.path, environment=environment).strip()) for _ in range(2))
    assert one != other


def gathered(generation: int | None, marker: int) -> Ingredients:
    """What a clone gathers on a machine where only generation and marker ever change."""
    return LESS._replace(generation=generation, marker=marker)


def test_incarnation_depends_on_generation_and_whole_marker(world: World) -> None:
    """Also on a marker that the publisher's own disruptions moved, by 2**32; and on nothing that is not gathered."""
    with Clock(world.path, fence=None) as clock:
        snapshot = clock.snapshot()
    marker = snapshot.body.disruption_marker
    moved = snapshot.model_copy(
        update={"body": snapshot.body.model_copy(update={"disruption_marker": marker + 2**32})}
    )
    drawn = [Incarnation(gather=gathered).of(*seen) for seen in ((snapshot, 1), (snapshot, 2), (moved, 1))]
    assert len(set(drawn)) == 3
    assert Incarnation(gather=gathered).of(snapshot, 1) == drawn[0]


@pytest.mark.anyio
async def test_incarnation_of_a_callback_is_drawn_alike(segment: PlayedSegment) -> None:
    """What is drawn for the callbacks of a restore is from the restore's generation and marker."""
    incarnation, called = Incarnation(gather=gathered), anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    incarnation.on_restore = (call,)
    with Clock(segment.path, fence=segment.device) as clock, anyio.fail_after(5):
        before = clock.snapshot()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(incarnation.keep, clock._waiting, before))
            await until_waiting(clock)
            segment.restore()
            await called.wait()
            await until_waiting(clock)
            tasks.cancel_scope.cancel()
        after = clock.snapshot()
    generation = after.body.vm_generation_counter
    drawn = Incarnation(gather=gathered).of(after, generation)
    assert incarnation.of(after, generation) == drawn
    assert drawn != Incarnation(gather=gathered).of(before, before.body.vm_generation_counter)


def test_incarnation_is_a_random_uuid(clock: Clock) -> None:
    """Version 4 and the variant of RFC 9562, which programs that validate a random UUID ask for."""
    assert (clock.incarnation.version, clock.incarnation.variant) == (4, RFC_4122)


@pytest.mark.skipif(COUNTER_ID != 1, reason="Arm's counter cannot be forbidden")
def test_draw_needs_no_counter(run_script: RunScript) -> None:
    """Where a thread may not read the counter (PR_SET_TSC), it draws without: nothing in a draw raises SIGSEGV."""
    assert run_script("draw_without_counter") == "None True\n"
