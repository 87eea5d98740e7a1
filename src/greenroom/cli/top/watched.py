"""Worker that the view shows: its picture, and since when it does not answer. Pure: the time is an argument."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..text import clock, one_line
from .picture import Picture

__all__ = ["Loss", "Watched"]


class Loss(NamedTuple):
    """Time since which a worker does not answer, and the cause."""

    since: float
    """Seconds since the epoch: the time of the last answer, or of the first try if there was none."""
    cause: str
    is_refusal: bool
    """True if the worker answers, but refuses to be watched."""

    @property
    def text(self) -> str:
        what = "refused" if self.is_refusal else "no answer"
        return one_line(f"{what} since {clock(self.since)}{f': {self.cause}' if self.cause else ''}")


class Watched:
    """Worker with its picture, which stays as it was when the worker does not answer any more."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        """Name of the worker, or its URL: see :meth:`greenroom.cli.workers.Workers.name_of`."""
        self.picture = Picture()
        self.loss: Loss | None = None
        """Loss of the connection; ``None`` while the worker answers."""
        self._heard: float | None = None
        """Time of the last event; ``None`` before the first one."""

    def hear(self, event: str, data: dict[str, Any], now: float) -> None:
        """Process an event of the worker."""
        self.picture.apply(event, data)
        self.loss, self._heard = None, now

    def lose(self, cause: str, now: float, *, is_refusal: bool = False) -> None:
        """Process the end of the events, or a failed try to get them."""
        since = self.loss.since if self.loss is not None else self._heard or now
        self.loss = Loss(since, cause, is_refusal)
