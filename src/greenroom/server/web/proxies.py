"""Trusted proxies: the address of the client behind them. Pure.

Each proxy appends the address of its own client to ``X-Forwarded-For``. What is left of an address that is not trusted
was sent by that address, which can write anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Client", "TrustedProxies"]

_MOST_HOPS = 16
"""Addresses in ``X-Forwarded-For`` that are read, from the right. A client can send thousands of trusted ones."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Some proxies append the port of their client, too.
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](:[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}")


class Client(NamedTuple):
    """Client of a request, as far as it is known."""

    address: str
    problem: str | None = None
    """Text in ``X-Forwarded-For`` that is no address. ``address`` is then that of the proxy that has sent it."""


class TrustedProxies:
    """Addresses and networks of proxies whose headers are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    @property
    def are_named(self) -> bool:
        """True if there are any."""
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Return true if an address is that of a trusted proxy."""
        parsed = _parsed(address) if self._networks else None
        return parsed is not None and self._has(parsed)

    def client_of(self, peer: str, forwarded_for: Iterable[str]) -> Client:
        """Return the client of a request from ``peer``: the right-most address that is no trusted proxy.

        ``forwarded_for`` are the values of all headers ``X-Forwarded-For``. If all addresses are trusted, the client is
        the first of them.
        """
        if not self.trusts(peer):
            return Client(peer)
        client = peer
        for hop in reversed(",".join(forwarded_for).split(",")[-_MOST_HOPS:]):
            text = hop.strip()
            if not text:
                continue
            address = _parsed(text)
            if address is None:
                return Client(client, text)
            client = str(address)
            if not self._has(address):
                break
        return Client(client)

    def _has(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> _Address | None:
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match["v6"] if match["v6"] is not None else match["v4"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families shows IPv4 clients as a part of IPv6.
    return getattr(address, "ipv4_mapped", None) or address
