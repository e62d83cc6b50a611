"""Print what two processes draw that were forked from one state, as JSON: python twins.py GENERATOR [reseed].

With "reseed" each gives new seeds to its generators first.
"""

import json
import os
import random
import sys
import tempfile
import types
import uuid
from collections.abc import Callable
from typing import Any

from vmclock_async.restore import register_reseed, reseed_python


def of_random() -> Callable[[], object]:
    return random.random


def of_tempfile() -> Callable[[], object]:
    names: Any = tempfile._get_candidate_names()  # type: ignore[attr-defined]
    next(names)  # from here on it has a state
    return lambda: next(names)


def of_uuid() -> Callable[[], object]:
    uuid.uuid1(), uuid.getnode()
    return lambda: (uuid.uuid1().node, uuid.getnode())


def of_ssl() -> Callable[[], object]:
    import ssl

    ssl.RAND_bytes(8)  # from here on it has a state
    return lambda: ssl.RAND_bytes(8).hex()


def of_numpy() -> Callable[[], object]:
    from numpy.random import random_sample

    return random_sample


def of_torch() -> Callable[[], object]:
    torch: Any = types.ModuleType("torch")  # the real one has 200 MB
    generator = random.Random(7)
    torch.manual_seed = generator.seed
    sys.modules["torch"] = torch
    return generator.random


def of_program() -> Callable[[], object]:
    generator = random.Random(7)
    register_reseed(generator.seed)
    return generator.random


draw: Callable[[], object] = globals()[f"of_{sys.argv[1]}"]()
state = random.getstate()
drawn = []
for _ in range(2):
    reading, writing = os.pipe()
    if not os.fork():
        random.setstate(state)  # Python gives new seeds to this one itself in a fork, but not after a restore
        if "reseed" in sys.argv:
            reseed_python()
        os.write(writing, json.dumps(draw()).encode())
        os._exit(0)
    os.wait()
    drawn.append(json.loads(os.read(reading, 1000)))
print(json.dumps(drawn))
