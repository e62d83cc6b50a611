"""New seeds for random generators: what two clones draw after a restore is not the same."""

import json
import random
import sys
import types
import uuid
from collections.abc import Callable, Iterator

import pytest

from kit.stand_ins import compiled, preloaded
from vmclock_async._restoring import reseeding
from vmclock_async.restore import register_reseed, reseed_python

RunScript = Callable[..., str]
GENERATORS = ["random", "tempfile", "uuid", "ssl", "numpy", "torch", "program"]


@pytest.fixture(scope="module")
def one_pid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process whose forks have its number."""
    return preloaded(compiled("same_pid", tmp_path_factory.mktemp("same_pid")))


@pytest.fixture
def register() -> Iterator[list[Callable[[bytes], object]]]:
    """The registered functions, of which there are none at first; afterwards they are as before."""
    before = list(reseeding._registered)
    reseeding._registered.clear()
    yield reseeding._registered
    reseeding._registered[:] = before


@pytest.mark.parametrize("generator", GENERATORS)
def test_twins_draw_the_same_without_new_seeds(
    run_script: RunScript, one_pid: dict[str, str], generator: str
) -> None:
    """The danger is there: two processes with one state draw the same."""
    first, second = json.loads(run_script("twins", generator, environment=one_pid))
    assert first == second


@pytest.mark.parametrize("generator", GENERATORS)
def test_twins_draw_something_else_after_new_seeds(
    run_script: RunScript, one_pid: dict[str, str], generator: str
) -> None:
    """With new seeds, of which nothing was in the common state, they differ in all that they draw."""
    first, second = json.loads(run_script("twins", generator, "reseed", environment=one_pid))
    assert first != second
    if generator == "uuid":
        assert not {*first} & {*second}


def test_generators_with_new_seeds_are_named(
    register: list[Callable[[bytes], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log can say what was done; a module that is not loaded has no state, and is not loaded for this."""
    monkeypatch.delitem(sys.modules, "ssl", raising=False)
    for name in ("numpy.random", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(uuid, "_node", uuid.getnode())
    monkeypatch.setattr(uuid, "_generate_time_safe", None)
    assert reseed_python() == ("random", "tempfile", "uuid")
    assert "torch" not in sys.modules
    generator = random.Random()
    assert register_reseed(generator.seed) == generator.seed
    assert reseed_python() == ("random", "tempfile", "uuid", "Random.seed")


def test_each_generator_has_a_seed_of_its_own(
    register: list[Callable[[bytes], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two generators with one seed would draw the same: each gets 32 bytes that no other got, at each call."""
    monkeypatch.setattr(uuid, "_node", uuid.getnode())
    monkeypatch.setattr(uuid, "_generate_time_safe", None)
    seeds: list[bytes] = []
    register += [seeds.append, seeds.append]
    reseed_python()
    reseed_python()
    assert [len(seed) for seed in seeds] == [32] * 4
    assert len(set(seeds)) == 4


def test_failure_of_one_keeps_no_other_from_a_new_seed(
    register: list[Callable[[bytes], object]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All others are reseeded, those after it too; then the error says which one was not."""
    monkeypatch.setattr(uuid, "_node", uuid.getnode())
    monkeypatch.setattr(uuid, "_generate_time_safe", None)
    for name in ("numpy.random", "ssl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    torch = types.ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)  # and it lacks manual_seed
    seeds: list[bytes] = []
    register.append(seeds.append)
    with pytest.raises(ExceptionGroup, match="of 5 random generators have no new seed") as caught:
        reseed_python()
    assert len(seeds) == 1
    (error,) = caught.value.exceptions
    assert error.__notes__ == ["torch has no new seed"]
    assert "torch has no new seed" in caplog.text


def test_version_1_uuids_stay_valid_and_hide_the_network_card(run_script: RunScript) -> None:
    """The new node is marked as random, and time goes on."""
    done = run_script("uuid_after_reseed")
    before, after = map(uuid.UUID, done.split())
    assert (after.version, after.variant) == (1, uuid.RFC_4122)
    assert after.node >> 40 & 1
    assert after.time > before.time


def test_each_known_generator_has_its_twins() -> None:
    """No generator is reseeded without its pair of tests."""
    assert {name.partition(".")[0] for name, _ in reseeding._OF_MODULES} == {*GENERATORS} - {"program"}
