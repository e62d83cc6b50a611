"""The kernel's uevents that report a restore: a netlink socket, which needs no privilege and no udev.

Some kernels send one, action ``change`` with ``NEW_VMGENID=1``, and others do not, and a socket in another network
namespace than the first one hears none.
"""

import socket
from typing import Final, Self, final

import anyio

__all__ = ("Uevents",)

_NETLINK_KOBJECT_UEVENT: Final = 15
"""include/uapi/linux/netlink.h"""
_FROM_KERNEL: Final = 1
"""The multicast group of the kernel's own events; udev's are in group 2."""
_LONGEST_EVENT: Final = 8192
_RESTORED: Final = b"NEW_VMGENID=1"


@final
class Uevents:
    """Listens from now on; a context manager.

    Raises:
        OSError: no such socket can be had.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._socket: Final = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        try:
            self._socket.bind((0, _FROM_KERNEL))
        except BaseException:
            self._socket.close()
            raise

    async def receive(self) -> None:
        """Wait for the next event that reports a restore.

        Raises:
            OSError: the socket cannot be read. With ENOBUFS, events were lost.
        """
        while True:
            await anyio.wait_readable(self._socket)
            try:
                event, (sender, _) = self._socket.recvfrom(_LONGEST_EVENT)
            except BlockingIOError:
                continue
            is_from_kernel = sender == 0  # another number is that of a process that pretends to be it
            if is_from_kernel and _RESTORED in event.split(b"\0"):
                return

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
