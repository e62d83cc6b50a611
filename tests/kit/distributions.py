"""Distributions: built and installed by pip without a network, and what they require from what is installed here."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ("copy_distribution", "pip", "required_by")


def pip(*arguments: object) -> None:
    """Run pip offline: what a build needs is installed."""
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def required_by(wanted: Distribution, *extras: str) -> list[Distribution]:
    """The installed distributions that *wanted* requires with *extras*, and all that these require."""
    found: dict[str, Distribution] = {}
    pending = _requirements(wanted, extras)
    while pending:
        requirement = pending.pop()
        if requirement.name not in found:
            found[requirement.name] = distribution(requirement.name)
            pending += _requirements(found[requirement.name], tuple(requirement.extras))
    return list(found.values())


def _requirements(wanted: Distribution, extras: Sequence[str]) -> list[Requirement]:
    """What *wanted* itself requires here with *extras*."""
    environments = [{"extra": extra} for extra in (*extras, "")]
    return [
        requirement
        for requirement in map(Requirement, wanted.requires or ())
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments))
    ]


def copy_distribution(installed: Distribution, site: Path) -> None:
    """Copy the files of *installed* to *site*, without its programs."""
    for file in installed.files or ():
        if ".." not in file.parts and file.suffix != ".pth":
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), target)
