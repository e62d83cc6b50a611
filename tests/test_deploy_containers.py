"""The files of ``deploy/`` for containers agree with each other and with the command line.

``make lint`` holds them against their schemas, and ``test_containers.py`` plays the pods through.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from kit.command_lines import check_command
from kit.manifests import DEPLOY, containers_of, pod_of
from vmclock_async._exporting.address import parse_address
from vmclock_async._paths import SEGMENT_VARIABLE, SYSTEM_PATH

POD: Final = pytest.mark.parametrize("name", ["publisher", "client"])
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERFILE: Final = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
BUILD, LAST = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[1:]
USER: Final = re.findall(r"^USER (\d+):(\d+)$", LAST, re.MULTILINE)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where a command line of ours is, and its words after ``vmclock-async``."""
    for name in ("publisher", "client"):
        for container in containers_of(name):
            if "command" not in container:  # the image's entry point
                yield f"{name}: {container['name']}", container["args"]
            if probe := container.get("readinessProbe"):
                yield f"{name}: readiness", ours(probe["exec"]["command"])
    for name, service in COMPOSE["services"].items():
        yield f"compose: {name}", service["command"]
    yield "compose: health", ours(COMPOSE["services"]["publisher"]["healthcheck"]["test"][1:])


def ours(words: list[str]) -> list[str]:
    assert words[0] == "vmclock-async"
    return words[1:]


@pytest.mark.long
@pytest.mark.parametrize("words", [pytest.param(words, id=where) for where, words in commands()])
def test_commands_are_those_of_the_command_line(words: list[str]) -> None:
    """Commands, options, sources and their settings are there; metrics are served at an address."""
    check_command(words)
    if "--metrics" in words:
        address = words[words.index("--metrics") + 1]
        assert parse_address(address.replace("$(POD_IP)", "192.0.2.1")).port == 9123


@POD
def test_pods_share_one_directory_of_the_node(name: str) -> None:
    """Readers' default path; never a file, which would stay the one that it was; only the publisher may write it."""
    (volume,) = pod_of(name)["volumes"]
    assert volume["hostPath"] == {"path": str(SYSTEM_PATH.parent), "type": "DirectoryOrCreate"}
    for container in containers_of(name):
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], str(SYSTEM_PATH.parent))
        assert "subPath" not in mount
        assert mount.get("readOnly", False) is (name == "client")
        variables = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
        assert "command" in container or variables[SEGMENT_VARIABLE] == str(SYSTEM_PATH)


def test_services_share_one_directory() -> None:
    """A volume in memory, which the publisher's user owns and the client may only read; the same path everywhere."""
    volumes = {name: service["volumes"] for name, service in COMPOSE["services"].items()}
    assert volumes == {
        "publisher": [f"segment:{SYSTEM_PATH.parent}"],
        "client": [f"segment:{SYSTEM_PATH.parent}:ro"],
    }
    for service in COMPOSE["services"].values():
        assert service["environment"] == {SEGMENT_VARIABLE: str(SYSTEM_PATH)}
    options = dict(option.split("=") for option in COMPOSE["volumes"]["segment"]["driver_opts"]["o"].split(","))
    assert [(options["uid"], options["gid"])] == USER
    assert int(options["mode"], 8) == 0o755
    assert f"{SEGMENT_VARIABLE}={SYSTEM_PATH}\n" in LAST


def test_image_is_named_alike_everywhere() -> None:
    """With the version of this release."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    image = f"vmclock-async:{project['version']}"
    named = {service["image"] for service in COMPOSE["services"].values()}
    named |= {container["image"] for name in ("publisher", "client") for container in containers_of(name)}
    assert named == {image}
    assert f"--tag {image} " in CONTAINERFILE


def is_confined(container: dict[str, Any], *, capabilities: list[str]) -> bool:
    """Whether *container* has no privilege but *capabilities*, and writes nowhere but to its volumes."""
    context = dict(container["securityContext"])
    given = context.pop("capabilities")
    return (
        given["drop"] == ["ALL"]
        and given.get("add", []) == capabilities
        and context["readOnlyRootFilesystem"] is True
        and context["allowPrivilegeEscalation"] is False
        and "privileged" not in context
    )


@POD
def test_pods_have_no_privileges(name: str) -> None:
    """Each container is an ordinary user's; the one that gives the directory to that user may do only that."""
    context = pod_of(name)["securityContext"]
    user = context["runAsUser"], context["runAsGroup"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert ([tuple(map(str, user))] == USER) is (name == "publisher")
    for container in containers_of(name):
        if container["name"] == "directory":
            assert container["command"] == ["chown", "{}:{}".format(*user), str(SYSTEM_PATH.parent)]
            assert is_confined(container, capabilities=["CHOWN"])
        else:
            assert is_confined(container, capabilities=[])
            assert not {"runAsUser", "runAsNonRoot"} & container["securityContext"].keys()


def test_services_have_no_privileges() -> None:
    """As the pods."""
    for service in COMPOSE["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    client = COMPOSE["services"]["client"]["user"]
    assert [tuple(client.split(":"))] != USER


def test_publisher_reaches_chronyd_and_prometheus_reaches_it() -> None:
    """chronyd's command port is on the host's loopback, so the publisher is in the host's network."""
    pod, service = pod_of("publisher"), COMPOSE["services"]["publisher"]
    (publisher,) = pod["containers"]
    assert pod["hostNetwork"] is True
    assert service["network_mode"] == "host"
    for words in (publisher["args"], service["command"]):
        assert "chrony.address=127.0.0.1:323" in words
    (port,) = publisher["ports"]
    assert port["containerPort"] == 9123
    assert publisher["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": port["name"]}


def test_last_stage_has_no_compiler() -> None:
    """It installs nothing, takes one directory of the first, and ends as an ordinary user."""
    assert BUILD.startswith("docker.io/library/python:${PYTHON}-${DEBIAN} AS build\n")
    assert LAST.startswith("docker.io/library/python:${PYTHON}-slim-${DEBIAN}\n")
    instructions = re.findall(r"^([A-Z]+) ", LAST, re.MULTILINE)
    assert instructions == ["COPY", "ENV", "USER", "ENTRYPOINT"]
    (copied,) = re.findall(r"^COPY --from=build (\S+) (\S+)$", LAST, re.MULTILINE)
    assert copied == ("/opt/vmclock-async/", "/opt/vmclock-async/")
    assert USER
    assert "0" not in USER[0]
    assert 'ENTRYPOINT ["vmclock-async"]\n' in LAST


def test_first_stage_copies_what_the_build_needs() -> None:
    """Every file and directory that it names is there, and the extras are the project's."""
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", BUILD, re.MULTILINE) for name in line.split()}
    assert all((DEPLOY.parent / name).exists() for name in copied)
    linked = {str(link.readlink()) for link in (DEPLOY.parent / "src").iterdir() if link.is_symlink()}
    assert all(target.startswith("../plugins/") for target in linked)
    assert {"csrc/", "plugins/", "src/", "setup.py"} <= copied
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= copied
    (extras,) = re.findall(r"'\.\[(.+)\]'", BUILD)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_manual_names_each_file() -> None:
    """The page on containers leads to each of them."""
    page = (DEPLOY.parent / "docs/how-to/containers.md").read_text(encoding="utf-8")
    files = [*DEPLOY.glob("Containerfile*"), *DEPLOY.glob("*.yaml"), *DEPLOY.glob("kubernetes/*")]
    assert len(files) == 4
    assert all(str(path.relative_to(DEPLOY.parent)) in page for path in files)
