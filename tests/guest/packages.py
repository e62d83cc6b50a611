"""Debian packages, downloaded by name and suite, and unpacked: none is installed.

apt does the work, on a state of its own in the cache directory. That knows of no installed package, so each set
comes with all that it needs, and works whatever the machine has. The archive is the one this machine's apt uses.
"""

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ("PackageError", "Packages")

SUITES: Final = ("bookworm", "bookworm-backports", "trixie-backports")
_DEBIAN: Final = re.compile(r"(bookworm|trixie|stable|oldstable|testing|sid|unstable)")
_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"

_log: Final = logging.getLogger("guest")


class PackageError(Exception):
    """A package cannot be had."""


class Packages:
    """Sets of packages under *cache*, each unpacked in a directory of its own."""

    def __init__(self, cache: Path) -> None:
        self._cache: Final = cache
        self._environment: dict[str, str] | None = None

    def unpacked(self, name: str, wanted: list[str], *, only: str = "") -> Path:
        """Where the set called *name* is unpacked: the packages *wanted* (``name/suite``) and what they need.

        *only* restricts it to packages whose names begin so. A set that is there is not looked for again.

        Raises:
            PackageError: the archive does not have them, or there is none.
        """
        root = self._cache / name
        if self.versions(name)[:1] == [" ".join(wanted)]:
            _log.info("%s: already in %s", name, root)
            return root
        exact = [package for package in self._resolve(wanted) if package.startswith(only)]
        _log.info("%s: downloading %d packages", name, len(exact))
        fresh, debs = self._cache / f"{name}.part", self._cache / f"{name}.debs"
        for directory in (root, fresh, debs):
            shutil.rmtree(directory, ignore_errors=True)
        fresh.mkdir()
        debs.mkdir()
        self._apt("apt-get", "-q", "download", *exact, directory=debs)
        size = 0
        for deb in sorted(debs.iterdir()):
            size += deb.stat().st_size
            _run(["dpkg", "-x", str(deb), str(fresh)])
        shutil.rmtree(debs)
        (fresh / ".packages").write_text("\n".join([" ".join(wanted), *exact, ""]))
        fresh.rename(root)
        _log.info("%s: %.0f MB unpacked in %s", name, size / 1e6, root)
        return root

    def versions(self, name: str) -> list[str]:
        """What was wanted of the set *name*, then each ``package=version`` in it; empty where it is not there."""
        try:
            return (self._cache / name / ".packages").read_text().splitlines()
        except OSError:
            return []

    def _resolve(self, wanted: list[str]) -> list[str]:
        plan = self._apt("apt-get", "--simulate", "install", *wanted)
        return [f"{package}={version}" for package, version in re.findall(r"(?m)^Inst (\S+) \((\S+) ", plan)]

    def _apt(self, *command: str, directory: Path | None = None) -> str:
        if self._environment is None:
            self._environment = self._prepare(self._cache / "apt")
            _log.info("reading the package lists of %s", ", ".join(SUITES))
            self._apt("apt-get", "-q", "update")
        return _run(list(command), environment=self._environment, directory=directory)

    def _prepare(self, state: Path) -> dict[str, str]:
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        (state / "debian.sources").write_text(
            f"Types: deb\nURIs: {_archive()}\nSuites: {' '.join(SUITES)}\nComponents: main\n"
            f"Architectures: amd64\nSigned-By: {_KEYRING}\n"
        )
        configuration = state / "apt.conf"
        configuration.write_text(
            f'Dir::Etc::SourceList "{state}/debian.sources";\nDir::Etc::SourceParts "/dev/null";\n'
            f'Dir::State::Lists "{state}/lists";\nDir::State::Status "/dev/null";\nDir::Cache "{state}/cache";\n'
            'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n'
        )
        return os.environ | {"APT_CONFIG": str(configuration), "LC_ALL": "C"}


def _archive() -> str:
    """Debian's archive as this machine's own apt has it."""
    targets = _run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
    )
    for uri, release, component in (line.split() for line in targets.splitlines() if line.count(" ") == 2):
        if component == "main" and _DEBIAN.fullmatch(release):
            return uri
    raise PackageError("apt on this machine knows of no Debian archive; one has to be in its sources")


def _run(command: list[str], *, environment: dict[str, str] | None = None, directory: Path | None = None) -> str:
    try:
        done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise PackageError(f"{command[0]} is not here; this runs on Debian alone") from exc
    if done.returncode:
        raise PackageError(f"{' '.join(command[:3])} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout
