"""A guest under QEMU, and what the host can do to it: migrate it, write into the page as a hypervisor does.

The guest's lines arrive in a file, to which the second QEMU of a migration goes on appending.
"""

import json
import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

__all__ = ("Machine", "MachineError")

PAGE_ADDRESS: Final = 0xFEFFB000
"""Where QEMU puts the page (hw/acpi/vmclock.h); the guest's /proc/iomem shows it."""
_MEMORY_MB: Final = 512

_log: Final = logging.getLogger("guest")


class MachineError(Exception):
    """QEMU does not do what it should."""


class Machine:
    """A guest of *kernel* and *initramfs*, run by the QEMU unpacked in *qemu*; *directory* is for its files."""

    def __init__(self, *, qemu: Path, kernel: Path, initramfs: Path, directory: Path) -> None:
        self._qemu: Final = qemu
        self._kernel: Final = kernel
        self._initramfs: Final = initramfs
        self._directory: Final = directory
        self._snapshot: Final = directory / "snapshot"
        self._processes: Final[list[subprocess.Popen[bytes]]] = []
        self._started_at = time.monotonic()

    @property
    def console(self) -> str:
        """What the kernel, and QEMU, have said."""
        return "".join((self._directory / name).read_text(errors="replace") for name in ("qemu.log", "console"))

    def __enter__(self) -> Self:
        for name in ("console", "report", "qemu.log"):
            (self._directory / name).touch()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def lines(self, limit_s: float) -> Iterator[str]:
        """Each line of the guest's report, as it comes, until the guest is off.

        Raises:
            MachineError: after *limit_s* seconds in all.
        """
        with (self._directory / "report").open(encoding="utf-8", errors="replace") as report:
            line = ""
            while time.monotonic() < self._started_at + limit_s:
                running = self._processes[-1].poll() is None
                if part := report.readline():
                    line += part
                    if line.endswith("\n"):
                        yield line.strip("\r\n")
                        line = ""
                elif running:
                    time.sleep(0.005)
                else:
                    return
        raise MachineError(f"the guest is not done after {limit_s:.0f} s; its console:\n{self.console[-2000:]}")

    def migrate(self) -> float:
        """Save the guest to a file, and go on from there in another QEMU; seconds that it took."""
        began = time.monotonic()
        self.save()
        self.restore()
        return time.monotonic() - began

    def save(self) -> None:
        """Save the guest to a file, the snapshot, and end its QEMU. The guest does nothing after what it said last."""
        self._monitor.execute("stop")
        self._monitor.execute("migrate", uri=f"file:{self._snapshot}")
        self._monitor.wait_migrated()
        self._monitor.execute("quit")
        self._processes[-1].wait(30)

    def restore(self) -> None:
        """Go on from the snapshot in another QEMU, whatever became of the guest since; again, if it was done before."""
        self._processes[-1].kill()
        self._processes[-1].wait()
        self._start("-incoming", "defer")
        self._monitor.execute("migrate-incoming", uri=f"file:{self._snapshot}")
        self._monitor.wait_migrated()
        self._monitor.execute("cont")

    def write(self, offset: int, data: bytes) -> None:
        """Write *data* into the page at *offset* while the guest runs."""
        self._qtest.sendall(b"write 0x%x 0x%x 0x%s\n" % (PAGE_ADDRESS + offset, len(data), data.hex().encode()))
        if not (answer := self._qtest.recv(100)).startswith(b"OK"):
            raise MachineError(f"qtest: {answer!r}")

    def version(self) -> str:
        """QEMU's version, as Debian numbers it."""
        return str(self._monitor.execute("query-version")["package"])

    def _start(self, *more: str) -> None:
        number = len(self._processes)
        sockets = {name: self._directory / f"{name}{number}" for name in ("qmp", "qtest")}
        command = [*_program(self._qemu, "usr/bin/qemu-system-x86_64")]
        for place in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"):
            command += ["-L", str(self._qemu / place)]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"]
        command += ["-accel", "tcg", "-cpu", "qemu64", "-smp", "2", "-m", str(_MEMORY_MB)]
        command += ["-device", "vmclock", "-device", "vmgenid,guid=auto"]
        command += ["-kernel", str(self._kernel), "-initrd", str(self._initramfs)]
        command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable rdinit=/init"]
        for name in ("console", "report"):
            path = self._directory / name
            command += ["-chardev", f"file,id={name},path={path},append=on", "-serial", f"chardev:{name}"]
        command += ["-qtest-log", "/dev/null"]
        for name, path in sockets.items():
            command += [f"-{name}", f"unix:{path},server=on,wait=off"]
        with (self._directory / "qemu.log").open("ab") as log:
            process = subprocess.Popen([*command, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        self._monitor = _Monitor(self._connect(process, sockets["qmp"]))
        self._qtest = self._connect(process, sockets["qtest"])

    def _connect(self, process: subprocess.Popen[bytes], path: Path) -> socket.socket:
        give_up = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(60)
            try:
                connection.connect(str(path))
                return connection
            except OSError:
                connection.close()
                time.sleep(0.02)
        raise MachineError(f"QEMU did not start:\n{self.console[-2000:]}")


def _program(root: Path, name: str) -> list[str]:
    """A command for the program *name* in *root* that uses the libraries there, not the machine's."""
    libraries = [root / place for place in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]
    loader = next(path for place in libraries if (path := place / "ld-linux-x86-64.so.2").exists())
    return [str(loader), "--library-path", ":".join(map(str, libraries)), str(root / name)]


class _Monitor:
    """QEMU's machine protocol (QMP) over *connection*."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream: Final = connection.makefile("rwb", buffering=0)
        self._stream.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self._stream.readline():
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:  # else an event
                raise MachineError(f"{command}: {answer['error']['desc']}")
        raise MachineError(f"{command}: QEMU has ended")

    def wait_migrated(self) -> None:
        while (state := self.execute("query-migrate")).get("status") != "completed":
            if state.get("status") in ("failed", "cancelled"):
                raise MachineError(f"migration: {state}")
            time.sleep(0.02)
