"""A service manager that only listens: the socket of sd_notify(3), and what came there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from kit import waits


class PlayedManager:
    """Listens at *address*: a path, or ``@`` and an abstract name. A context manager."""

    def __init__(self, address: Path | str) -> None:
        self.address: Final = str(address)
        self.messages: Final[list[str]] = []
        """Everything that came and was read, in order."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)

    def read(self) -> list[str]:
        """Read what has come; return all ``messages``."""
        while True:
            try:
                self.messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.messages

    def read_until(self, holds: Callable[[list[str]], object]) -> list[str]:
        """Read until it *holds* of ``messages``; return them."""
        waits.eventually(lambda: holds(self.read()))
        return self.messages

    def count(self, message: str) -> int:
        """How often *message* has come so far."""
        return self.read().count(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if not self.address.startswith("@"):
            os.unlink(self.address)
