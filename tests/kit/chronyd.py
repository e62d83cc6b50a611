"""Real chronyds on loopback that leave the system's clock alone (``chronyd -x``), each in its own directory."""

import getpass
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

import pytest

CHRONYD: Final = shutil.which("chronyd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

needs_chronyd = pytest.mark.skipif(CHRONYD is None, reason="chronyd is not installed (Debian: chrony)")


def free_port() -> int:
    """A UDP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_SOCK_SAMPLE: Final = struct.Struct("@lldiiii")
_SOCK_MAGIC: Final = 0x534F434B


class ReferenceClock:
    """A clock that is ahead of CLOCK_REALTIME by *ahead_ns*, told to a ``refclock SOCK`` at *path*."""

    def __init__(self, path: Path, *, ahead_ns: int) -> None:
        self._path = path
        self._ahead_ns = ahead_ns
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def tell(self) -> None:
        """Send a sample of now."""
        seconds, ns = divmod(time.time_ns(), 10**9)
        sample = _SOCK_SAMPLE.pack(seconds, ns // 1000, self._ahead_ns / 1e9, 0, 0, 0, _SOCK_MAGIC)
        self._socket.sendto(sample, str(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Chronyd:
    """A chronyd with the configuration *lines*; started by ``start``, killed at the end of the block."""

    def __init__(self, *lines: str) -> None:
        self.directory: Final = Path(tempfile.mkdtemp(prefix="chronyd-"))
        self.directory.chmod(0o750)  # or chronyd does not trust it with its socket
        self.socket: Final = self.directory / "chronyd.sock"
        self._config: Final = self.directory / "chrony.conf"
        self._config.write_text(
            "\n".join([*lines, f"bindcmdaddress {self.socket}", f"pidfile {self.directory / 'pid'}", ""])
        )
        self._log: Final = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def server(cls, port: int) -> Self:
        """One that serves the system's clock as stratum 1."""
        return cls("local stratum 1", f"port {port}", "bindaddress 127.0.0.1", "allow 127.0.0.1", "cmdport 0")

    @classmethod
    def client(cls, port: int, *more: str, command_port: int = 0) -> Self:
        """One that follows the server at *port*, eight times a second."""
        server = f"server 127.0.0.1 port {port} iburst minpoll -3 maxpoll -3"
        return cls(server, "port 0", f"cmdport {command_port}", "bindcmdaddress 127.0.0.1", *more)

    @classmethod
    def of_reference_clock(cls) -> Self:
        """One that follows the reference clock PHC0, whose samples are sent to ``reference_socket``."""
        made = cls("port 0", "cmdport 0")
        with made._config.open("a") as config:
            config.write(f"refclock SOCK {made.reference_socket} refid PHC0 poll -2 filter 1\n")
        return made

    @property
    def reference_socket(self) -> Path:
        """Where a reference clock of type SOCK is listened to."""
        return self.directory / "reference.sock"

    def start(self) -> None:
        """Start it, and return when its socket is there."""
        assert CHRONYD is not None
        self.socket.unlink(missing_ok=True)
        (self.directory / "pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            command = [CHRONYD, "-x", "-d", "-U", "-u", getpass.getuser(), "-f", str(self._config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        give_up = time.monotonic() + 10
        while not self.socket.exists():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < give_up, self._log.read_text()
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
