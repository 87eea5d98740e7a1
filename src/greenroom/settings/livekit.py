"""The settings of the LiveKit source: declared once, here, and passed on whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import OptionError

__all__ = ["LiveKitOptions"]

_LONGEST_OFFER = 2.8
"""After this many seconds the server has given an offer up, and the room stays without an agent."""

_LONGEST_DELAY = 5.0
"""A caller who hears nothing for longer hangs up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitOptions:
    """LiveKit rooms, for apps that are LiveKit agents."""

    livekit_url: str | None = None
    """The LiveKit server, such as wss://livekit.example.com; several are separated by commas (default: LIVEKIT_URL,
    or else the app's ``ws_url``)."""
    livekit_api_key: str | None = None
    """The key to it; with several servers one for all, or one for each (default: LIVEKIT_API_KEY)."""
    livekit_api_secret: str | None = field(default=None, metadata={"secret": True}, repr=False)
    """The key's secret; with several servers as for the key (default: LIVEKIT_API_SECRET)."""
    livekit_agent_name: str | None = None
    """The name by which the agent is dispatched; several are separated by commas. Empty: it is dispatched to each
    new room (default: the app's)."""
    livekit_type: Literal["app", "room", "publisher", "participant"] = "app"
    """One job for each room, each publisher, or each participant; ``app``: what the app says."""
    livekit_offer_timeout: float = 2.0
    """How long an offer may wait for a process that is on its way. At most 2.3 s count, so that the answer
    comes in time: the server gives an offer up after 2.8 s, over all workers that it asks, and asks nobody again. With
    several workers a shorter time leaves them more of it."""
    livekit_start_delay: float = 4.0
    """The longest that a job's start is put off when more rooms come at once than processes are idle; 0 is never. All
    are answered before agents that join take the CPUs, and these then start in batches of what the CPUs can carry."""
    livekit_restart: Literal["never", "on_crash", "on_worker_loss"] = "never"
    """Whether a job that crashed is started again in its room; on_worker_loss: also those of a worker that is gone,
    by any other one on the same server."""
    livekit_max_restarts: int = 2
    """How often one job is started again."""
    livekit_loss_timeout: float = 10.0
    """A worker that the others have not heard of for so long counts as gone."""

    def __post_init__(self) -> None:
        if not 0 <= self.livekit_offer_timeout <= _LONGEST_OFFER:
            raise OptionError(
                f"livekit_offer_timeout is {self.livekit_offer_timeout!r}; it must be a number of seconds from 0 to "
                f"{_LONGEST_OFFER:g}, when the server gives up"
            )
        if not 0 <= self.livekit_start_delay <= _LONGEST_DELAY:
            raise OptionError(
                f"livekit_start_delay is {self.livekit_start_delay!r}; it must be a number of seconds from 0 to "
                f"{_LONGEST_DELAY:g}"
            )
        if not 0 <= self.livekit_max_restarts < 1000:
            raise OptionError(f"livekit_max_restarts is {self.livekit_max_restarts!r}; it must be from 0 to 999")
        if not 1 <= self.livekit_loss_timeout < 10**6:
            raise OptionError(f"livekit_loss_timeout is {self.livekit_loss_timeout!r}; it must be at least 1 second")
