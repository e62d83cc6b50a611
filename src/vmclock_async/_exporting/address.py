"""Addresses to listen on, as people write them: ``127.0.0.1:9123``, ``[::1]:9123``, ``:9123``."""

import re
from ipaddress import ip_address
from typing import Final, NamedTuple, final

__all__ = ("Address", "parse_address")

_FORM: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]*)):([0-9]{1,5})")
_LOOPBACK: Final = "127.0.0.1"


@final
class Address(NamedTuple):
    """An IP address and a port; as a text, the form that people write."""

    host: str
    port: int

    def __str__(self) -> str:
        """The address with its port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """*text*, an IP address and a port. A port alone is on loopback, where other machines do not reach it.

    Raises:
        ValueError: it is no such address. Names are refused, because to resolve one may take long, or give several.
    """
    if (found := _FORM.fullmatch(text)) is not None:
        in_brackets, plain, port = found.groups()
        host = in_brackets or plain or _LOOPBACK
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if address is not None and (address.version == 6) == bool(in_brackets) and int(port) < 2**16:
            return Address(host, int(port))
    raise ValueError(
        f"{text!r} is no address to listen on: an IP address and a port, as in 127.0.0.1:9123 or [::1]:9123; "
        ":9123 is on loopback"
    )
