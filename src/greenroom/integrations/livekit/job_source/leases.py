"""Leases, by which workers learn that a peer is gone, and which jobs it had. Pure.

Each worker has a room of its own on the server, without participants. The room's metadata is the worker's lease: a
counter that goes up as long as the worker lives, and the jobs that the worker runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PREFIX", "Holding", "Lease", "LeaseBook"]

PREFIX = "greenroom-worker-"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Holding:
    """One job in a worker's lease."""

    job_id: str
    room: str
    dispatch_id: str
    identity: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Lease of one worker: its counter and its jobs."""

    beat: int
    jobs: tuple[Holding, ...]

    def encode(self) -> str:
        content = {"greenroom": _VERSION, "beat": self.beat, "jobs": [asdict(job) for job in self.jobs]}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Lease | None:
        """Return the lease in a text; ``None`` for another text, and for a lease of another version."""
        try:
            content: dict[str, Any] = json.loads(text)
            if content["greenroom"] != _VERSION:
                return None
            return cls(int(content["beat"]), tuple(Holding(**job) for job in content["jobs"]))
        except (ValueError, TypeError, KeyError):
            return None


class LeaseBook:
    """Record of the leases of other workers, on this worker's clock: the clocks need not agree.

    A lease that has not changed for ``timeout`` seconds belongs to a lost worker. If this worker itself was stopped,
    each lease gets the whole time again.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._seen: dict[str, tuple[str, float]] = {}
        self._looked_at: float | None = None

    def observe(self, leases: dict[str, str], now: float) -> list[str]:
        """Note the leases, and return the rooms of the lost workers. ``leases`` maps each lease's room to its text."""
        was_away = self._looked_at is not None and now - self._looked_at > self._timeout / 2
        self._looked_at = now
        before = {} if was_away else self._seen
        self._seen = {
            name: before[name] if name in before and before[name][0] == text else (text, now)
            for name, text in leases.items()
        }
        return [name for name, (_, since) in self._seen.items() if now - since >= self._timeout]
