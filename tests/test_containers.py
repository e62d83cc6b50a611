"""The manifests of ``deploy/kubernetes/`` played through, with a real chronyd, and without a container runtime.

Publisher and client have the mounts, the users, the variables and the command lines of the manifests. What only a
container runtime gives (control groups, seccomp, the device) is not played.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.manifests import containers_of, pod_of
from kit.mounts import in_container
from kit.programs import path_of
from kit.prometheus import free_tcp_port
from kit.scrapes import scrape
from kit.waits import eventually

PUBLISHER, CLIENT = (pod_of(name)["securityContext"]["runAsUser"] for name in ("publisher", "client"))
DIRECTORY, WRITER = containers_of("publisher")
WAIT, READER = containers_of("client")
START = Callable[..., "subprocess.Popen[str]"]

pytestmark: Final = [
    needs_chronyd,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may be several users"),
]


@pytest.fixture
def start(segment_path: Path) -> Iterator[START]:
    """Start a program in a container like one of the manifests'; killed at the end of the test."""
    with ExitStack() as stack:

        def start(container: dict[str, Any], program: str, *words: object) -> "subprocess.Popen[str]":
            (mount,) = container["volumeMounts"]
            command = in_container(segment_path.parent, writable=not mount.get("readOnly", False))
            own = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_RUNTIME_DIR")}
            given = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
            process = subprocess.Popen(
                [*command, path_of(program), *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=own | given,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def command_port() -> Iterator[int]:
    """The command port of a chronyd on loopback that follows another one."""
    server, port = free_port(), free_port()
    with Chronyd.server(server), Chronyd.client(server, command_port=port):
        yield port


def test_client_without_sidecar_outlives_restarts_of_the_publisher(
    start: START, segment_path: Path, command_port: int
) -> None:
    """Read-only root, no /tmp, two users who are not root: the client reads, and its mount leads to the new time."""
    metrics = f"127.0.0.1:{free_tcp_port()}"
    arguments = [
        word.replace("$(POD_IP):9123", metrics).replace("127.0.0.1:323", f"127.0.0.1:{command_port}")
        for word in WRITER["args"]
    ]
    waits = start(WAIT, "command_as_user", CLIENT, *("1ms" if word == "10s" else word for word in WAIT["args"]))
    *chown, _ = DIRECTORY["command"]
    subprocess.run([*chown, segment_path.parent], check=True)
    publisher = start(WRITER, "command_as_user", PUBLISHER, *arguments)
    eventually(lambda: waits.poll() is not None or publisher.poll() is not None)
    if (waits.poll(), publisher.poll()) != (0, None):
        waits.kill()
        publisher.kill()
        raise AssertionError([ended.communicate() for ended in (waits, publisher)])
    client = start(READER, "events_as_user", CLIENT)
    assert client.stdout is not None
    assert client.stdout.readline() == "SYNCHRONIZED /run/vmclock-async/shm0\n"
    assert segment_path.stat().st_uid == PUBLISHER

    name, *probe = WRITER["readinessProbe"]["exec"]["command"]
    ready = start(WRITER, "command_as_user", PUBLISHER, *probe)
    assert (name, ready.wait(30)) == ("vmclock-async", 0), ready.communicate()
    alive = scrape(metrics, WRITER["livenessProbe"]["httpGet"]["path"])
    assert "vmclock_bounded 1.0" in alive

    publisher.terminate()
    _, log = publisher.communicate(timeout=30)
    assert publisher.returncode == 0, log
    assert client.stdout.readline() == "FREERUNNING\n"
    start(WRITER, "command_as_user", PUBLISHER, *arguments)
    assert client.stdout.readline() == "SYNCHRONIZED\n"
