"""Memory for large messages from children: one budget in bytes for the whole pool.

A result may have 64 MiB, and a pool may have hundreds of jobs. So the supervisor reads a large message only when the
budget has room for the whole message. Until then the message stays with its child, which waits in its own event loop. A
message that has its room needs nothing more, so two messages never wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .clock import AwakeClock, Timer

__all__ = ["FREE", "Share", "TransitMemory"]

FREE = 128 * 1024
"""Bytes. A message up to this size needs no share, so acknowledgements and most results never wait."""
MODEST = 1024 * 1024
"""Bytes. A message up to this size is modest, and may also use the reserved room."""
TOTAL = 128 * 1024 * 1024
RESERVED = 32 * 1024 * 1024
"""Bytes of the total that only modest messages may use. So a few huge results hold up only other huge results."""
PATIENCE = 30.0
"""Seconds for which an unfinished message may hold its share while others wait."""


class Share:
    """Room of one message. ``on_grant`` is called at most once, and not at all if the room was free at once."""

    def __init__(self, size: int, on_grant: Callable[[], object], on_overdue: Callable[[], object]) -> None:
        self.size = size
        self.is_granted = False
        self.is_complete = False
        """True after the whole message has arrived. From then on, other deadlines bound the process that sent it."""
        self.granted_at = 0.0
        self.on_grant: Callable[[], object] | None = on_grant
        self.on_overdue: Callable[[], object] | None = on_overdue

    @property
    def is_modest(self) -> bool:
        return self.size <= MODEST


class TransitMemory:
    """Budget that grants shares: to modest messages first, and otherwise in the order of the requests."""

    def __init__(self, clock: AwakeClock, *, total: int = TOTAL, reserved: int = RESERVED) -> None:
        self._clock = clock
        self._total = total
        self._reserved = reserved
        self._held: set[Share] = set()
        self._modest: deque[Share] = deque()
        self._huge: deque[Share] = deque()
        self._patience: Timer | None = None

    @property
    def held_bytes(self) -> int:
        return sum(share.size for share in self._held)

    @property
    def waiting(self) -> int:
        """Number of messages that wait for room."""
        return len(self._modest) + len(self._huge)

    def ask(self, size: int, on_grant: Callable[[], object], on_overdue: Callable[[], object]) -> Share:
        """Request room for a message of ``size`` bytes.

        ``on_overdue`` is called if the message holds up other messages for too long.
        """
        share = Share(size, on_grant, on_overdue)
        queue = self._modest if share.is_modest else self._huge
        if not queue and self._fits(share):
            self._grant(share)
        else:
            queue.append(share)
            self._watch_holders()
        return share

    def release(self, share: Share) -> None:
        """Take back a share, granted or not, and grant the shares that fit now."""
        share.on_grant = share.on_overdue = None  # they refer to the process, which refers to the share
        for queue in (self._modest, self._huge):
            if share in queue:
                queue.remove(share)
        self._held.discard(share)
        self._grant_waiting()

    def _fits(self, share: Share) -> bool:
        bound = self._total if share.is_modest else self._total - self._reserved
        # A share of any size fits if no other share is held. Otherwise a share could wait for ever.
        return self.held_bytes + share.size <= bound or not self._held

    def _grant(self, share: Share) -> None:
        share.is_granted, share.granted_at = True, self._clock.now()
        self._held.add(share)

    def _grant_waiting(self) -> None:
        for queue in (self._modest, self._huge):
            while queue and self._fits(queue[0]):
                share = queue.popleft()
                self._grant(share)
                if share.on_grant is not None:
                    share.on_grant()

    # --- overdue shares --------------------------------------------------------------------------

    def _watch_holders(self) -> None:
        if self._patience is None:
            self._patience = self._clock.call_later(PATIENCE, self._look_at_holders)

    def _look_at_holders(self) -> None:
        self._patience = None
        if not self.waiting:
            return
        now = self._clock.now()
        for share in list(self._held):
            is_overdue = not share.is_complete and now - share.granted_at >= PATIENCE
            if is_overdue and share.on_overdue is not None:
                share.on_overdue()
        self._watch_holders()
