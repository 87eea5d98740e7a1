"""The peers by name: how each is started, and what each cannot do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.base import PeerPool
    from benchmarks.peers.inbox import Inbox


@dataclass(frozen=True)
class Peer:
    name: str
    label: str
    requires: tuple[str, ...] = ()
    """Modules without which the peer is left out."""
    pool: str = ""
    """`module:class` of its `PeerPool`."""
    arguments: tuple[str, ...] = ()
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Figures that this peer has no way to do, and why."""
    slow: bool = False
    """Takes tens of seconds for what others do in one: one round is enough to tell."""
    width: int = 8
    """How many jobs at a time give it the most jobs per second."""
    prepare: Callable[[], list[str]] | None = None
    """What makes the command of a peer that is not in Python; raises `Unavailable`."""

    def command(self) -> list[str]:
        for module in self.requires:
            if importlib.util.find_spec(module) is None:
                raise Unavailable(f"{module} is not installed")
        if self.prepare:
            return self.prepare()
        return [sys.executable, "-m", "benchmarks.peers", self.name]


class Unavailable(Exception):
    """Why a peer cannot be run here."""


_FRAMEWORK = "every process of it loads livekit.agents: see the row above"
_FIXED = "its number of workers is fixed: it cannot grow from 4 idle to 20 running"


def _node() -> list[str]:
    from benchmarks.peers import node

    return node.command()


_PEERS = (
    Peer("greenroom", "Greenroom", ("greenroom",), "greenroom:GreenroomPool"),
    Peer(
        "livekit-forkserver",
        "livekit-agents, forkserver",
        ("livekit.agents",),
        "livekit:LiveKitPool",
        ("forkserver",),
        {"start_trivial": _FRAMEWORK},
    ),
    Peer(
        "livekit-spawn",
        "livekit-agents, spawn",
        ("livekit.agents",),
        "livekit:LiveKitPool",
        ("spawn",),
        slow=True,
    ),
    Peer("livekit-node", "@livekit/agents, Node", prepare=_node, slow=True),
    Peer("futures-forkserver", "ProcessPoolExecutor, forkserver", (), "futures:FuturesPool", ("forkserver",)),
    Peer("futures-spawn", "ProcessPoolExecutor, spawn", (), "futures:FuturesPool", ("spawn",), slow=True),
    Peer(
        "pebble",
        "pebble, forkserver",
        ("pebble",),
        "pebble_pool:PebblePool",
        ("forkserver",),
        {"burst": _FIXED},
        width=32,
    ),
    Peer("floor", "bare fork", (), "floor:Floor"),
)
PEERS = {peer.name: peer for peer in _PEERS}


def make(name: str, inbox: Inbox) -> PeerPool:
    """The pool of a peer, in its driver."""
    peer = PEERS[name]
    module, _, attribute = peer.pool.partition(":")
    factory: Any = getattr(importlib.import_module(f"benchmarks.peers.{module}"), attribute)
    pool: PeerPool = factory(inbox, *peer.arguments)
    return pool
