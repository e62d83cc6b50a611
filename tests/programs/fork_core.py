"""Fork a process with pages, and print what the child has of them."""

import ctypes
import fcntl
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from vmclock_async import _core

path, how = sys.argv[1:]
fork = os.fork if how == "os.fork" else ctypes.CDLL(None).fork


def lock_is_free() -> bool:
    fd = os.open(path + ".lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def mapped_writable() -> bool:
    with open("/proc/self/maps") as maps:
        return any(line.rstrip().endswith(path) and "rw-s" in line for line in maps)


def in_child(act: Callable[[], object]) -> tuple[Any, Callable[[], None]]:
    """The child's findings, and a function that ends the child, which lives on until then."""
    results, answer = os.pipe()
    wait, go = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.write(answer, json.dumps(act()).encode())
            os.close(answer)
            os.close(go)
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(answer)
    found = json.loads(os.read(results, 4096))

    def end() -> None:
        os.close(go)
        os.waitpid(pid, 0)

    return found, end


lock_fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock_fd, fcntl.LOCK_EX)
fd = os.open(path, os.O_RDWR)
page = _core.Page(fd, writable=True, lock_fd=lock_fd)
second_fd = os.open(path, os.O_RDWR)
second = _core.Page(second_fd, writable=True)
reader = _core.Page(os.open(path, os.O_RDONLY))


def refused(use: Callable[[], object]) -> bool:
    try:
        use()
    except ValueError:
        return True
    return False


def look() -> dict[str, object]:
    targets = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry)]
    found = {
        "closed": [page.closed, second.closed],
        "descriptors": [target for target in targets if target.startswith(path)],
        "mapped_writable": mapped_writable(),
        "refused": [refused(page.read), refused(lambda: page.commit(bytes(88), None, None))],
        "reader": reader.read() is not None,
    }
    page.close()
    return found


found, end = in_child(look)
end()
report: dict[str, object] = {"child": found, "held_after_child": not lock_is_free()}
report["parent_writes"] = page.commit(bytes(88), None, None)
_, end = in_child(lambda: None)
page.close()
report["free_beside_child"] = lock_is_free()
end()
print(json.dumps(report))
