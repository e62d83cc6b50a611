"""Where servers are: names and ports as users write them, and those that a cloud offers at addresses of its own.

The addresses of clouds are link-local: they lead to the host, and to nobody else's server. Amazon's two are in the EC2
User Guide ("Amazon Time Sync Service"). 169.254.169.254 is that of metadata.google.internal in Google Compute Engine
("Configure NTP on a VM"), and of Oracle's cloud ("Configuring the Oracle Cloud Infrastructure NTP Service"). Amazon and
Google smear leap seconds, also at their public servers, and so do Meta's public servers; no packet says so.
"""

import ipaddress
import re
import socket
from typing import Final, NamedTuple, Self, cast

from vmclock_ntp.exchange import Address

__all__ = ("LINK_LOCAL", "ServerName")

_PORT: Final = 123
_BRACKETED: Final = re.compile(r"\[([^\]]+)\](?::(\d{1,5}))?")
_PLAIN: Final = re.compile(r"([A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_SMEARING: Final = re.compile(
    r"169\.254\.169\.(123|254)|fd00:ec2::123|(metadata|time[1-4]?)\.google\.(internal|com)|216\.239\.35\.(0|4|8|12)"
    r"|time\.aws\.com|time[1-5]?\.facebook\.com",
    re.I,
)
"""Hosts whose operators say that they smear. Oracle's may not, but has Google's address."""


class ServerName(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The server that *text* names: ``host``, ``host:port``, ``[v6]:port``, or an IPv6 address alone.

        Raises:
            ValueError: it has another form.
        """
        text = text.strip()
        bracketed = _BRACKETED.fullmatch(text)
        match = bracketed or _PLAIN.fullmatch(text)
        host, port = (match[1], int(match[2] or _PORT)) if match else (text, _PORT)
        try:
            if bracketed or not match:
                host = str(ipaddress.IPv6Address(host))
            if not 0 < port < 2**16:
                raise ValueError(f"there is no port {port}")
        except ValueError as exc:
            raise ValueError(f"{text!r} is no server: write host, host:port, or [IPv6 address]:port") from exc
        return cls(host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port != _PORT else self.host
        return host if self.port == _PORT else f"{host}:{self.port}"

    @property
    def smears(self) -> bool:
        """Whether it is known to smear leap seconds."""
        return _SMEARING.fullmatch(self.host.removesuffix(".")) is not None  # the dot ends a complete name

    @property
    def numeric(self) -> Address:
        """The address of a host that is one by its name.

        Raises:
            ValueError: it is a name for a resolver.
        """
        version = ipaddress.ip_address(self.host).version
        return (socket.AF_INET6 if version == 6 else socket.AF_INET), (self.host, self.port)

    def resolve(self) -> list[Address]:
        """Its addresses by the resolver, best first; blocks for as long as that takes.

        Raises:
            OSError: the resolver finds none.
        """
        host = self.host.encode("ascii")  # as text it would go through IDNA, which raises errors of its own
        found = socket.getaddrinfo(host, self.port, type=socket.SOCK_DGRAM)
        return [(family, cast("tuple[str | int, ...]", address)) for family, _, _, _, address in found]


LINK_LOCAL: Final = tuple(
    ServerName(host, _PORT) for host in ("169.254.169.123", "fd00:ec2::123", "169.254.169.254")
)
"""Servers that clouds offer to their machines."""
