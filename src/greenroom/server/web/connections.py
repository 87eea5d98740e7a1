"""Policy for all connections of a worker: their number, and the bytes that they hold. No socket is used here."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

__all__ = ["Crowd", "HeldBytes", "Member", "network_of"]

STUCK = 2.0
"""Seconds without a read by the client of an answer. After that, the connection may be closed for a new one."""
SMALL = 16 * 1024
"""Bytes that each connection may always hold. A request without a body, such as a health check, is always answered."""
_MOST_COMPARED = 1000
"""Idle connections that are compared to choose one, the longest idle first. More would take too long."""
_IPV6_CUSTOMER = 64
"""Bits of an IPv6 address that identify a customer. Each customer can use all addresses with these bits."""


class Member(Protocol):
    """Connection, as this policy sees it."""

    network: str

    @property
    def may_be_refused(self) -> bool:
        """True if the connection holds bytes that no handler needs yet."""

    def refuse(self) -> None:
        """Take no more bytes in, and drop the bytes that the connection holds."""

    def evict(self) -> None:
        """Close the connection."""


class Crowd:
    """All connections of a worker, at most ``most``. One network never has the last tenth of them.

    A new connection takes the place of an idle one. The network with the most connections loses its longest idle one.
    If no connection is idle, a connection is closed of which the client does not read its answer.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._most_of_one = most - most // 10
        self._members: set[Member] = set()
        self._networks: Counter[str] = Counter()
        self._idle: dict[Member, None] = {}
        self._stuck: dict[Member, float] = {}

    def make_room(self, network: str, now: float) -> bool:
        """Return true if one more connection from this network may be taken. Close another connection if needed."""
        if self._networks[network] >= self._most_of_one:
            return self._evict_one(now, network)
        return len(self._members) < self.most or self._evict_one(now)

    def make_idle_room(self, most: int) -> int:
        """Close up to ``most`` idle connections. Return the number of closed connections."""
        victims = list(self._idle)[:most]
        for victim in victims:
            self._evict(victim)
        return len(victims)

    def add(self, member: Member) -> None:
        """Add a connection. At first, the connection is idle."""
        self._members.add(member)
        self._networks[member.network] += 1
        self._idle[member] = None

    def remove(self, member: Member) -> None:
        """Forget a connection. Harmless if the connection was removed before."""
        if member in self._members:
            self._members.discard(member)
            self._networks[member.network] -= 1
            if not self._networks[member.network]:
                del self._networks[member.network]
            self._idle.pop(member, None)
            self._stuck.pop(member, None)

    def busy(self, member: Member) -> None:
        self._idle.pop(member, None)

    def idle(self, member: Member) -> None:
        """Note that a connection is idle. Among the idle ones, it is now the last to be closed."""
        if member in self._members:
            self._idle.pop(member, None)
            self._idle[member] = None

    def stuck(self, member: Member, now: float) -> None:
        """Note that the client of a connection does not read."""
        if member in self._members:
            self._stuck[member] = now

    def moving(self, member: Member) -> None:
        """Note that the client of a connection has read."""
        self._stuck.pop(member, None)

    def _evict_one(self, now: float, network: str | None = None) -> bool:
        stuck = (member for member, since in self._stuck.items() if now - since > STUCK)
        victim = self._first(self._idle, network) or self._first(stuck, network)
        if victim is not None:
            self._evict(victim)
        return victim is not None

    def _first(self, members: Iterable[Member], network: str | None) -> Member | None:
        if network is not None:
            return next((member for member in members if member.network == network), None)
        # Among equal ones, max() returns the first: the longest idle one.
        compared = islice(members, _MOST_COMPARED)
        return max(compared, key=lambda member: self._networks[member.network], default=None)

    def _evict(self, victim: Member) -> None:
        self.remove(victim)
        victim.evict()


class HeldBytes:
    """Bytes of all requests that are not answered yet: at most ``most``, and a few KiB more of each connection.

    Above the limit, the connection that holds the most bytes is refused. The candidates are the connection that has
    just sent, and those with bytes that no handler needs yet. A connection with at most :data:`SMALL` bytes is never
    refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._held: dict[Member, int] = {}
        self._large: dict[Member, None] = {}

    def add(self, member: Member, size: int) -> None:
        self._set(member, self.of(member) + size)
        while self._total > self._most and (victim := self._largest(member)) is not None:
            self.drop(victim)
            victim.refuse()

    def of(self, member: Member) -> int:
        return self._held.get(member, 0)

    def release(self, member: Member, size: int) -> None:
        """Subtract the bytes of a request that is answered."""
        self.at_most(member, max(self.of(member) - size, 0))

    def at_most(self, member: Member, size: int) -> None:
        """Lower the count of a connection's bytes to ``size``, if the count is higher."""
        if self.of(member) > size:
            self._set(member, size)

    def drop(self, member: Member) -> None:
        """Forget the bytes of a connection. Harmless if the connection holds none."""
        self._total -= self._held.pop(member, 0)
        self._large.pop(member, None)

    def _set(self, member: Member, size: int) -> None:
        self._total += size - self.of(member)
        self._held[member] = size
        if size > SMALL:
            self._large[member] = None
        else:
            self._large.pop(member, None)

    def _largest(self, newest: Member) -> Member | None:
        candidates = (member for member in self._large if member is newest or member.may_be_refused)
        return max(candidates, key=self._held.__getitem__, default=None)


def network_of(address: str) -> str:
    """Return the name of a client: its IPv4 address, or the /64 network of its IPv6 address."""
    host = address.partition("%")[0]
    if ":" not in host:
        return host
    mapped = ipaddress.IPv6Address(host).ipv4_mapped  # a dual-stack socket shows IPv4 clients like this
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.IPv6Network((host, _IPV6_CUSTOMER), strict=False))
