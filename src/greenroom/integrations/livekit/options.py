"""Settings of the LiveKit source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...errors import OptionError

__all__ = ["LiveKitOptions"]

_LONGEST_OFFER = 2.3
"""Seconds. The server gives an offer up after 2.8 s. In the difference the pool can reject the job with a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitOptions:
    """Settings of the LiveKit source, for apps that are LiveKit agents."""

    livekit_url: str | None = None
    """URL of the LiveKit server, such as wss://livekit.example.com; commas separate several (default: LIVEKIT_URL,
    or else the app's ``ws_url``)."""
    livekit_api_key: str | None = None
    """API key of the server; for several servers one key for all, or one for each (default: LIVEKIT_API_KEY)."""
    livekit_api_secret: str | None = field(default=None, metadata={"secret": True}, repr=False)
    """Secret of the API key; for several servers one for all, or one for each (default: LIVEKIT_API_SECRET)."""
    livekit_agent_name: str | None = None
    """Name of the agent in dispatches; commas separate several. With an empty name the server dispatches the agent to
    each new room (default: the agent name of the app)."""
    livekit_type: Literal["app", "room", "publisher", "participant"] = "app"
    """One job for each room, each publisher, or each participant; ``app``: as the app sets it."""
    livekit_offer_timeout: float = 2.0
    """Longest wait of an offer for a process that is on its way, in seconds, at most 2.3 s. The server gives an offer
    up after 2.8 s, for all workers together, and asks no worker again. With several workers, a shorter wait leaves
    more time to the others."""
    livekit_restart: Literal["never", "on_crash", "on_worker_loss"] = "never"
    """Restart of jobs in their rooms: on_crash for a job that crashed; on_worker_loss also for the jobs of a lost
    worker, by another worker on the same server."""
    livekit_max_restarts: int = 2
    """Highest number of restarts of one job."""
    livekit_loss_timeout: float = 10.0
    """Seconds without news of a worker after which the other workers count it as lost."""

    def __post_init__(self) -> None:
        if not 0 <= self.livekit_offer_timeout <= _LONGEST_OFFER:
            raise OptionError(
                f"livekit_offer_timeout is {self.livekit_offer_timeout!r}; it must be a number of seconds from 0 to "
                f"{_LONGEST_OFFER:g}, since the server gives an offer up after 2.8 s"
            )
        if not 0 <= self.livekit_max_restarts < 1000:
            raise OptionError(f"livekit_max_restarts is {self.livekit_max_restarts!r}; it must be from 0 to 999")
        if not 1 <= self.livekit_loss_timeout < 10**6:
            raise OptionError(f"livekit_loss_timeout is {self.livekit_loss_timeout!r}; it must be at least 1 second")
