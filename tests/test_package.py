"""The package as a whole: public names, where objects say they live, and what a module may import."""

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vmclock_async
import vmclock_chrony
import vmclock_clockbound
import vmclock_device
import vmclock_kernel
import vmclock_ntp
import vmclock_ptp
import vmclock_pytest
import vmclock_replay
import vmclock_told
import vmclock_vmgenid
from kit.programs import path_of
from vmclock_async import errors

PLUGINS: tuple[ModuleType, ...] = (
    vmclock_chrony,
    vmclock_clockbound,
    vmclock_device,
    vmclock_kernel,
    vmclock_ntp,
    vmclock_ptp,
    vmclock_pytest,
    vmclock_replay,
    vmclock_told,
    vmclock_vmgenid,
)
PACKAGES: tuple[ModuleType, ...] = (vmclock_async, *PLUGINS)


def public_modules() -> list[str]:
    """Names of all modules without a leading underscore in their path."""
    names = []
    for package in PACKAGES:
        names.append(package.__name__)
        modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [module.name for module in modules if "._" not in module.name]
    return names


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_listed(name: str) -> None:
    """A public module has a sorted tuple __all__ of names that exist and have a docstring."""
    module = importlib.import_module(name)
    listed = module.__all__
    assert isinstance(listed, tuple)
    ranked = sorted(listed, key=lambda entry: (not entry.isupper(), not entry[0].isupper(), entry))
    assert list(listed) == ranked
    for entry in listed:
        value = getattr(module, entry)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{entry} has no docstring"


def test_exported_objects_report_the_package() -> None:
    """A traceback and a pickle name vmclock_async.SegmentError, not the module it happens to be written in."""
    for name in vmclock_async.__all__:
        assert getattr(vmclock_async, name).__module__ == "vmclock_async", name


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_pickles(name: str) -> None:
    """An error that crosses a process boundary keeps its type, its text and its attributes."""
    error_type = getattr(errors, name)
    arguments: dict[type, tuple[object, ...]] = {
        errors.SegmentUnstableError: ("/path", "moving", 7),
        errors.RecordingError: ("/path", 3, "bad"),
    }
    if issubclass(error_type, errors.SegmentError | errors.SourceError):
        given = arguments.get(error_type, ("name", "reason"))
    else:
        given = arguments.get(error_type, ("reason",))
    error = error_type(*given)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (error_type, str(error), vars(error))
    assert issubclass(error_type, errors.VMClockError)


def test_missing_core_says_how_to_build_it() -> None:
    """Without the compiled core nothing is sound, so the import fails, and says what to do."""
    result = subprocess.run([sys.executable, path_of("without_core")], capture_output=True, text=True, check=True)
    assert "pip install" in result.stdout


def test_interpreter_with_its_own_gil_is_told_what_to_do_instead() -> None:
    """The core is there, so building it again is no advice: it says what cannot be, and what can."""
    result = subprocess.run([sys.executable, path_of("own_gil")], capture_output=True, text=True, check=True)
    assert "does not support loading in subinterpreters" in result.stdout
    assert "in processes of their own" in result.stdout
    assert "pip install" not in result.stdout


def test_package_never_imports_asyncio_by_name() -> None:
    """Nothing here is bound to one event loop. What is quicker with asyncio is for those who run it already."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            spec = importlib.util.find_spec(module.name)
            assert spec is not None
            if spec.origin is not None and spec.origin.endswith(".py"):
                assert "import asyncio" not in Path(spec.origin).read_text(encoding="utf-8"), module.name


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_installed_packages_are_seen_by_tools_that_read_paths_alone(package: ModuleType) -> None:
    """Type checkers and editors look for packages along sys.path, and run no hook of an editable install."""
    assert importlib.machinery.PathFinder.find_spec(package.__name__) is not None


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.__name__)
def test_plugins_import_public_names_alone(plugin: ModuleType) -> None:
    """What ships here uses no more than a third party's plugin may: no module or name with an underscore."""
    modules = pkgutil.walk_packages(plugin.__path__, f"{plugin.__name__}.")
    for name in (plugin.__name__, *(module.name for module in modules)):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vmclock_async"):
                assert "._" not in f".{node.module}", node.module
                listed = importlib.import_module(node.module or "").__all__
                assert {name.name for name in node.names} <= set(listed), node.module


NOT_IMPORTED = (
    "typer",
    "rich",
    "pydantic_settings",
    "tomlkit",
    "pychrony",
    "inotify_simple",
    "prometheus_client",
    "asyncio",
    "trio",
    "pytest",
    "hypothesis",
)


@pytest.mark.parametrize(
    ("program", "spared"),
    [
        ("import vmclock_async", NOT_IMPORTED),
        ("import vmclock_async.testing", NOT_IMPORTED),
    ],
    ids=["package", "testing"],
)
def test_what_is_not_needed_is_not_imported(program: str, spared: tuple[str, ...]) -> None:
    """No library of the command line's, no plugin and what it needs, nothing for waiting alone, and no event loop."""
    script = (
        f"{program}\nimport json, sys; print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    )
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-I", "-c", script], text=True)))
    plugins = {plugin.__name__ for plugin in PLUGINS}
    assert "vmclock_async" in loaded
    assert loaded & (plugins | set(spared)) == set()


def test_import_builds_no_model() -> None:
    """The first model that pydantic builds costs a seventh of the whole import, and most programs need few of them."""
    program = "import sys, vmclock_async; sys.exit('pydantic.plugin._loader' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
