"""A bug report's file: what ``doctor`` found, versions, pages and a few lines of the kernel, with nothing personal.

Every text goes through ``Redaction`` before it is written. The archive has no names of files or users of this machine
either: neither in its members nor in gzip's header.
"""

import gzip
import io
import json
import os
import platform
import pwd
import re
import socket
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self, final

from vmclock_async import abi
from vmclock_async._cli.findings import Machine
from vmclock_async.errors import VMClockError
from vmclock_async.segment import SegmentReader

__all__ = ("Redaction", "write_bundle")

_DISTRIBUTIONS: Final = (
    "vmclock-async",
    "anyio",
    "pydantic",
    "pydantic-core",
    "pychrony",
    "rich",
    "trio",
    "typer",
    "uvloop",
)
_VARIABLES: Final = ("VMCLOCK_ASYNC_SEGMENT", "VMCLOCK_ASYNC_SOURCES", "XDG_RUNTIME_DIR")
"""Variables whose values may be part of a finding."""
_OF_CPU: Final = ("flags", "Features", "model name", "CPU implementer", "CPU part")
_OF_LOG: Final = re.compile(r"vmclock|vmgenid|virtual machine fork", re.IGNORECASE)
_NOT_OF_LOG: Final = re.compile(r"command line", re.IGNORECASE)
"""The kernel's own command line may hold anything."""
_LONGEST_RECORD: Final = 8192
"""Bytes: CONSOLE_EXT_LOG_MAX, include/linux/printk.h."""
_LONGEST_LOG_S: Final = 0.5
_MAYBE_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+")
_OWNER: Final = re.compile(r"\S+ \(uid (\d+)\)")
_HOMES: Final = re.compile(r"(/home|/Users)/[^/\s:,;]+")
_NOT_PERSONAL: Final = ("", "localhost", "nobody", "root")


@final
class Redaction:
    """Replaces what is personal in texts.

    Args:
        words: what is replaced, and by what; the longest are replaced first.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        known = {word: instead for word, instead in words.items() if word not in _NOT_PERSONAL}
        self._words: Final = dict(sorted(known.items(), key=lambda item: -len(item[0])))

    @classmethod
    def of_this_user(cls) -> Self:
        """The host's name, this user's name and home directory, and the values of variables."""
        words = {os.environ.get(name, ""): f"${name}" for name in _VARIABLES}
        words |= {os.environ.get(name, ""): "USER" for name in ("USER", "LOGNAME", "SUDO_USER")}
        words |= {os.environ.get("HOME", "").rstrip("/"): "~"}
        with suppress(KeyError):
            user = pwd.getpwuid(os.getuid())
            words |= {user.pw_name: "USER", user.pw_dir.rstrip("/"): "~"}
        with suppress(OSError):
            host = socket.gethostname()
            words |= {host: "HOST", host.partition(".")[0]: "HOST"}
        return cls(words)

    def text(self, text: str) -> str:
        """*text* without names, homes and addresses."""
        for word, instead in self._words.items():
            # A name is replaced where it stands by itself, and a path also at the beginning of a longer path.
            parts = re.split(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text)
            text = instead.join(parts)
        text = _HOMES.sub(r"\1/USER", text)
        text = _OWNER.sub(r"USER (uid \1)", text)
        return _MAYBE_ADDRESS.sub(_hidden, text)

    def value(self, value: Any) -> Any:
        """*value*, made of what JSON has, with each text in it redacted; the keys of its objects are our own."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {key: self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case _:
                return value


def _hidden(found: re.Match[str]) -> str:
    """The text of *found* with an address in it replaced, unless it is one of this machine alone."""
    text = found[0]
    # What stands around an address may look like a part of it: a full stop, a colon, a port.
    for candidate in (text, text.rstrip(".:"), text.lstrip(".:"), text.strip(".:"), text.partition(":")[0]):
        with suppress(ValueError):
            return text if ip_address(candidate).is_loopback else text.replace(candidate, "ADDRESS")
    return text  # a number, a time of day, a version


def write_bundle(path: Path, report: Mapping[str, object], machine: Machine) -> None:
    """Write *report* and what belongs to it to *path*, where nothing may be yet.

    Raises:
        OSError: something is at *path*, or it cannot be written.
    """
    redaction = Redaction.of_this_user()
    content = io.BytesIO()
    # Not tarfile's own "w:gz": it would put the file's name into the header.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in _members(redaction, report, machine):
            member = tarfile.TarInfo(f"doctor/{name}")  # of user 0, without names
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with path.open("xb") as file:
        try:
            file.write(content.getvalue())
            file.flush()
        except OSError:
            path.unlink()  # half a bundle is none
            raise


def _members(redaction: Redaction, report: Mapping[str, object], machine: Machine) -> Iterator[tuple[str, bytes]]:
    yield "report.json", _json(redaction.value(report))
    yield "versions.json", _json(redaction.value(_versions(machine)))
    yield "cpuinfo.txt", _encoded(_cpuinfo(machine.proc))
    yield "kernel-log.txt", _encoded(redaction.text(_kernel_log(machine.kmsg)))
    if page := _page(machine.device):
        yield "device.page", page
    with suppress(VMClockError):
        if page := _page(machine.segment_path()):
            yield "segment.page", page


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _versions(machine: Machine) -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": machine.kernel_release,
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
    }
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _cpuinfo(proc: Path) -> str:
    """The lines of the first processor that say what it can do."""
    try:
        first = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError as exc:
        return f"cannot be read ({exc.strerror})\n"
    return "".join(f"{line}\n" for line in first.splitlines() if line.partition(":")[0].strip() in _OF_CPU)


def _kernel_log(kmsg: Path) -> str:
    """The lines of the kernel's log that are about the devices that show restores."""
    try:
        fd = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        return f"cannot be read ({exc.strerror})\n"
    lines: list[str] = []
    with os.fdopen(fd, "rb", buffering=0) as log:
        give_up = time.monotonic() + _LONGEST_LOG_S
        while time.monotonic() < give_up:
            try:
                record = log.read(_LONGEST_RECORD)
            except BrokenPipeError:  # the oldest record that is still held comes next
                continue
            except OSError as exc:
                lines.append(f"cannot be read any further ({exc.strerror})")
                break
            if not record:  # None from the device, once all of it is read
                break
            # A record of the device is "priority,sequence,microseconds,flags;message"; a file has many lines.
            told = record.decode("utf-8", "replace").splitlines()
            lines += [line for line in told if _OF_LOG.search(line) and not _NOT_OF_LOG.search(line)]
    return "".join(f"{line}\n" for line in lines)


def _page(path: Path) -> bytes | None:
    """The page at *path*, packed again from one whole copy, so that nothing else of a file is taken along."""
    try:
        with SegmentReader(path) as reader:
            snapshot = reader.snapshot()
    except (VMClockError, OSError):
        return None
    header = abi.Header(
        snapshot.magic,
        snapshot.size,
        snapshot.version,
        int(snapshot.counter_id),
        int(snapshot.time_type),
        snapshot.seq_count,
    )
    page = abi.pack_header(header) + snapshot.body.pack()
    return page.ljust(min(snapshot.size, abi.MAX_SIZE), b"\0")
