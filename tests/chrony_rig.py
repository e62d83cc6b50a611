"""Real chronyds on loopback that leave the system's clock alone (``chronyd -x``), each in its own directory."""

import getpass
import os
import shutil
import signal
import socket
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
