"""What a driver asks of a peer: a pool of one-shot processes behind five small methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypedDict


class JobMetadata(TypedDict):
    """A session's metadata. `fifo` is where it reports its entry; `hold` is how long it stays, in seconds."""

    id: int
    fifo: str
    hold: float


class PeerPool(Protocol):
    async def open(self, idle: int, most: int) -> None:
        """Start a pool that keeps `idle` processes warm for up to `most` sessions; return when they are."""

    async def settled(self) -> None:
        """Return when the idle target is warm again and no session runs."""

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        """Hand a session to the pool. The result is done when the session has ended."""

    def idle_pids(self) -> list[int]: ...

    def cold(self, count: int) -> AsyncIterator[float]:
        """Start processes one at a time on a quiet machine; yield how long each took, in milliseconds."""
