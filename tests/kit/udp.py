"""A server that answers datagrams."""

import selectors
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self


class UdpServer(ABC):
    """Answers on a port of 127.0.0.1, from a thread of its own, from the end of its constructor until it is closed.

    Port 0 is one that nobody has at the moment.
    """

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._socket.getsockname()[1]
        return port

    def close(self) -> None:
        """Answer nobody any more."""
        if self._thread.is_alive():
            self._stop.close()
            self._thread.join()
            self._stopped.close()
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _answer(self, request: bytes) -> bytes | None:
        """What to answer *request* with, if anything."""

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while self._stopped not in [key.fileobj for key, _ in selector.select()]:
                try:
                    request, client = self._socket.recvfrom(1024)
                except BlockingIOError:
                    continue
                self._reply(request, client)

    def _reply(self, request: bytes, client: tuple[str, int]) -> None:
        """Send what answers *request*."""
        if answer := self._answer(request):
            self._socket.sendto(answer, client)
