"""All connections of a worker together: how many there are, and how many bytes they hold. Policy, without sockets."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

__all__ = ["Crowd", "HeldBytes", "Member", "network_of"]

STUCK = 2.0
"""Seconds that a client reads nothing of its answer; then its connection may go for a new one."""
SMALL = 16 * 1024
"""Bytes that a connection may always hold: a request without a body, such as a health check, is answered."""
_MOST_COMPARED = 1000
"""Idle connections, those that are idle longest, of which one is chosen: it must not take long."""
_IPV6_CUSTOMER = 64
"""Bits of an IPv6 address that tell one customer from another. The rest is each customer's own."""


class Member(Protocol):
    """One connection, as far as the others are concerned."""

    network: str

    @property
    def may_be_refused(self) -> bool:
        """Tell whether it holds bytes of which no handler needs any yet."""

    def refuse(self) -> None:
        """Take no more bytes in, and let go of those that it holds."""

    def evict(self) -> None:
        """Close."""


class Crowd:
    """At most ``most`` connections, of which one network never has the last tenth.

    A new connection takes the place of an idle one: of those that belong to the network with the most connections, the
    one that is idle longest. If none is idle, it takes the place of one whose client does not read its answer.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._most_of_one = most - most // 10
        self._members: set[Member] = set()
        self._networks: Counter[str] = Counter()
        self._idle: dict[Member, None] = {}
        self._stuck: dict[Member, float] = {}

    def make_room(self, network: str, now: float) -> bool:
        """Evict if need be; returns whether one more connection from this network may be taken."""
        if self._networks[network] >= self._most_of_one:
            return self._evict_one(now, network)
        return len(self._members) < self.most or self._evict_one(now)

    def make_idle_room(self, most: int) -> int:
        """Evict up to so many idle connections; returns how many it were."""
        victims = list(self._idle)[:most]
        for victim in victims:
            self._evict(victim)
        return len(victims)

    def add(self, member: Member) -> None:
        """Add a connection, which is idle at first."""
        self._members.add(member)
        self._networks[member.network] += 1
        self._idle[member] = None

    def remove(self, member: Member) -> None:
        """Forget it. Harmless if that was done before."""
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
        """Note that a connection is idle: the last of the idle ones to go."""
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
        # max() takes the first of several.
        compared = islice(members, _MOST_COMPARED)
        return max(compared, key=lambda member: self._networks[member.network], default=None)

    def _evict(self, victim: Member) -> None:
        self.remove(victim)
        victim.evict()


class HeldBytes:
    """At most ``most`` bytes that clients have sent and that are not answered yet, beside a few KiB of each.

    Above that the connection that holds most is refused, of those with a body that is not complete, or with requests
    behind the present one. If there is none, it is the one that has sent just now.
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
        """A request of so many bytes is answered."""
        self.at_most(member, max(self.of(member) - size, 0))

    def at_most(self, member: Member, size: int) -> None:
        """Lower the bytes that a connection is known to hold."""
        if self.of(member) > size:
            self._set(member, size)

    def drop(self, member: Member) -> None:
        """Forget the bytes of a connection. Harmless if it holds none."""
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
    """Return the name of one client: its IPv4 address, or the /64 network of its IPv6 address."""
    host = address.partition("%")[0]
    if ":" not in host:
        return host
    mapped = ipaddress.IPv6Address(host).ipv4_mapped  # a socket for both families shows IPv4 clients so
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.IPv6Network((host, _IPV6_CUSTOMER), strict=False))
