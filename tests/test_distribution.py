"""What is given to others: the sdist, the wheel that is built from it, and the command line that the wheel installs."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePath
from typing import Final
from zipfile import ZipFile

import pytest

from kit.commands import environment
from kit.distributions import copy_distribution, pip, required_by
from kit.fitness import fit

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
ROOT: Final = Path(__file__).parent.parent
NOT_IN_THE_REPOSITORY: Final = (
    *(".git", ".venv", ".headers", ".*_cache", ".hypothesis", ".coverage*", "__pycache__"),
    *("*.egg-info", "*.so", "build", "dist", "site", "PKG-INFO", "setup.cfg"),
)
"""What tests and builds make: beside the files of a clone, or of an sdist that somebody unpacked."""
LEFT_BEHIND: Final = (
    "src/vmclock_async/_core.abi3.so",
    "src/vmclock_async/__pycache__/abi.cpython-311.pyc",
    "tests/kit/__pycache__/waits.cpython-311.pyc",
    "examples/.pytest_cache/README.md",
    "examples/clock-source-template/build/lib/clock_source_template/__init__.py",
    "tests/.hypothesis/unicode_data/table.json",
    "build/lib/vmclock_async/_removed.py",
)
"""Of the kind that tests and builds leave in a working tree."""


@dataclass
class Built:
    """What ``python -m build`` made of a copy of the repository, whose files are *files*."""

    files: set[str]
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel that is built from it, of a working tree in which tests and builds have run."""
    tree = tmp_path_factory.mktemp("distribution") / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_IN_THE_REPOSITORY))
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    for name in LEFT_BEHIND:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left behind")
    flags = subprocess.check_output([ROOT / ".ci/python-headers", sys.executable, ROOT / ".headers"], text=True)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", tree],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(tree, {"CFLAGS": flags.strip()}),
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    sdist, wheel = sorted((tree / "dist").iterdir(), key=lambda path: path.suffix)
    return Built(files, sdist, wheel)


def test_sdist_has_the_whole_repository(built: Built) -> None:
    """Sources, tests, manual and examples are there, each once and as a file, and nothing that a run left behind."""
    with tarfile.open(built.sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    assert all(member.isreg() for member in members)
    names = [str(PurePath(*PurePath(member.name).parts[1:])) for member in members]
    assert len(set(names)) == len(names)
    made = {
        name
        for name in names
        if name in ("PKG-INFO", "setup.cfg") or name.startswith("src/vmclock_async.egg-info/")
    }
    assert set(names) - made == {name.replace("plugins/", "src/", 1) for name in built.files}


def test_wheel_has_the_packages_and_the_core(built: Built) -> None:
    """Every package with its types and data, the core, the license; one wheel serves each Python from 3.11."""
    packaged = {name.split("/", 1)[1] for name in built.files if name.startswith(("src/", "plugins/"))}
    with ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    (core,) = (name for name in names if name.endswith(".so"))
    own = {name for name in names if ".dist-info/" in name}
    assert names - own - {core} == packaged
    assert {f"{name.split('/')[0]}/py.typed" for name in packaged} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in own)
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert core == "vmclock_async/_core.abi3.so"
        assert "-cp311-abi3-" in built.wheel.name


@fit
def test_wheel_runs_without_a_compiler(built: Built, tmp_path: Path) -> None:
    """Installed with what it requires, and nothing else, ``vmclock-async demo`` publishes, and reads a bounded time."""
    venv.create(tmp_path / "venv", symlinks=True)
    bin_, nothing = tmp_path / "venv/bin", tmp_path / "nothing"
    nothing.mkdir()
    pip("--python", bin_ / "python", "install", built.wheel)
    (site,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    (own,) = site.glob("vmclock_async-*.dist-info")
    env = environment(tmp_path, {"PATH": str(nothing), "PYTHONPATH": ""})
    for needed in required_by(Distribution.at(own)):
        copy_distribution(needed, site)
    program = "from vmclock_async import VMClockBody, _core; print(_core.__file__)"
    core = subprocess.check_output([bin_ / "python", "-c", program], env=env, text=True)
    assert Path(core.strip()).is_relative_to(site)
    for needed in required_by(Distribution.at(own), "cli"):
        copy_distribution(needed, site)
    with subprocess.Popen(
        [bin_ / "vmclock-async", "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        demo.send_signal(signal.SIGTERM)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 0, said
    assert json.loads(first)["bounded"], said
