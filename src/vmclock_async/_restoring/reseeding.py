"""New seeds for the random generators that live in this process's memory, and so in each clone's.

A snapshot holds the state of every generator in user space. Two machines restored from it draw the same numbers, until
each generator gets a seed that the snapshot does not hold: one drawn as incarnations are (``_segment.entropy``).

``os.urandom``, ``secrets`` and ``random.SystemRandom`` ask the kernel, whose own generator is not reached from here: it
gets a new seed within milliseconds where the hypervisor has vmgenid (Linux 5.18), and otherwise within about a minute.

What is not reached: generators that a program made for itself (``random.Random()``, ``numpy.random.default_rng()``),
unless they are registered; a second copy of OpenSSL inside another package's compiled module; the seed of ``hash()``,
which a process keeps for life.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vmclock_async._segment.entropy import Ingredients

__all__ = ("register_reseed", "reseed_python")

Reseed = TypeVar("Reseed", bound=Callable[[bytes], object])

_MULTICAST: Final = 1 << 40
"""The bit that marks a node as random: no network card's address has it (RFC 9562, section 6.10)."""

_log: Final = logging.getLogger("vmclock_async.restore")
_registered: Final[list[Callable[[bytes], object]]] = []


def register_reseed(function: Reseed) -> Reseed:
    """Let ``reseed_python`` call *function* too; also a decorator. It is registered for the life of the process.

    Args:
        function: called with 32 random bytes of its own. For a generator made by ``random.Random()`` that is its
            method ``seed``.

    Returns:
        *function*.
    """
    _registered.append(function)
    return function


def reseed_python() -> tuple[str, ...]:
    """Give new seeds to the random generators of this process, those that modules share among all their users.

    * ``random``: its functions; ``tempfile``: the names that it makes.
    * ``uuid``: ``uuid1()`` and ``getnode()`` get a random node, and ``uuid1()`` no longer asks libuuid, which keeps its
      clock sequence, 14 bits, to itself. So ``UUID.is_safe`` becomes unknown.
    * ``ssl``, if it is loaded: the generator of its OpenSSL.
    * ``numpy.random`` and ``torch``, if they are loaded: their global generators, those of torch's devices too.
    * The functions given to ``register_reseed``, in order.

    Takes less than a millisecond without torch, and never waits. Call it after a restore, before anything that draws:
    ``register_after_restore(reseed_python)``.

    Returns:
        The names of the modules and functions that have new seeds.

    Raises:
        ExceptionGroup: some could not be given one; all others were.
    """
    done: list[str] = []
    errors: list[Exception] = []
    for name, reseed in _known():
        try:
            reseed(Ingredients.gather(None, 0).mix())
        except Exception as exc:  # a stranger's code, or a module that another stands in for
            _log.exception("%s has no new seed", name)
            exc.add_note(f"{name} has no new seed")
            errors.append(exc)
        else:
            done.append(name)
    if errors:
        raise ExceptionGroup(
            f"{len(errors)} of {len(done) + len(errors)} random generators have no new seed", errors
        )
    return tuple(done)


def _known() -> list[tuple[str, Callable[[bytes], object]]]:
    """The generators that are there now: only a module that is loaded can have drawn."""
    known = [(name, reseed) for name, reseed in _OF_MODULES if name in sys.modules]
    return known + [(getattr(function, "__qualname__", repr(function)), function) for function in _registered]


def _reseed_random(seed: bytes) -> None:
    _module("random").seed(seed)


def _reseed_tempfile(seed: bytes) -> None:
    names = _module("tempfile")._name_sequence  # None until the first name is made
    if names is not None:
        names.rng.seed(seed)


def _reseed_uuid(seed: bytes) -> None:
    # A clock sequence has 14 bits, too few to tell clones apart, so the node is new: 47 random bits.
    uuid = _module("uuid")
    uuid._node = int.from_bytes(seed[:6]) | _MULTICAST
    uuid._generate_time_safe = None  # then uuid1() takes this node, and a clock sequence from random


def _reseed_ssl(seed: bytes) -> None:
    _module("ssl").RAND_add(seed, float(len(seed)))  # the generators of all threads follow, before they draw again


def _reseed_numpy(seed: bytes) -> None:
    _module("numpy.random").seed([int.from_bytes(seed[at : at + 4]) for at in range(0, len(seed), 4)])


def _reseed_torch(seed: bytes) -> None:
    _module("torch").manual_seed(int.from_bytes(seed[:8]))


def _module(name: str) -> Any:
    """A module that is loaded, and may lack a type for what is set here."""
    return sys.modules[name]


_OF_MODULES: Final = (
    ("random", _reseed_random),
    ("tempfile", _reseed_tempfile),
    ("uuid", _reseed_uuid),
    ("ssl", _reseed_ssl),
    ("numpy.random", _reseed_numpy),
    ("torch", _reseed_torch),
)
