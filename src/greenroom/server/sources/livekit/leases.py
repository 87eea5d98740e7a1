"""What a worker leaves for its peers to find, and how they tell that it is gone. Pure.

Each worker has a room of its own on the server, in which nobody ever is. The room's metadata is its lease: a counter
that goes up as long as the worker lives, and the jobs that it runs.
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
    """One job of a worker's."""

    job_id: str
    room: str
    dispatch_id: str
    identity: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What one worker has told."""

    beat: int
    jobs: tuple[Holding, ...]

    def encode(self) -> str:
        content = {"greenroom": _VERSION, "beat": self.beat, "jobs": [asdict(job) for job in self.jobs]}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Lease | None:
        """``None`` for what is no lease, or one of a Greenroom that writes it in another way."""
        try:
            content: dict[str, Any] = json.loads(text)
            if content["greenroom"] != _VERSION:
                return None
            return cls(int(content["beat"]), tuple(Holding(**job) for job in content["jobs"]))
        except (ValueError, TypeError, KeyError):
            return None


class LeaseBook:
    """Follows the leases of others on one's own clock: theirs need not agree with it.

    ``timeout``: a lease that has not changed for so many seconds belongs to a worker that is gone. If the one who
    looks was away himself, everybody gets the whole time again.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._seen: dict[str, tuple[str, float]] = {}
        self._looked_at: float | None = None

    def observe(self, leases: dict[str, str], now: float) -> list[str]:
        """``leases``: the metadata of each room that holds one. Returns the rooms of those that are gone."""
        was_away = self._looked_at is not None and now - self._looked_at > self._timeout / 2
        self._looked_at = now
        before = {} if was_away else self._seen
        self._seen = {
            name: before[name] if name in before and before[name][0] == text else (text, now)
            for name, text in leases.items()
        }
        return [name for name, (_, since) in self._seen.items() if now - since >= self._timeout]
