"""Actions that keys lead to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .listing import JobRef

__all__ = ["Action", "Cancel", "Close", "Open", "Quit", "Scroll", "Search", "ShowPage", "TakeStacks", "TurnPage"]


@dataclass(frozen=True, slots=True)
class Quit:
    """Action: close the view."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Action: cancel a job. The user has confirmed this."""

    job: JobRef


@dataclass(frozen=True, slots=True)
class Search:
    """Action: show only the jobs that match these words. Without words, show all."""

    words: str


@dataclass(frozen=True, slots=True)
class Open:
    """Action: show one job alone."""

    job: JobRef


@dataclass(frozen=True, slots=True)
class Close:
    """Action: go back from the job to the lists."""


@dataclass(frozen=True, slots=True)
class TurnPage:
    """Action: show the next page of the job (1), or the one before (-1)."""

    step: int


@dataclass(frozen=True, slots=True)
class ShowPage:
    """Action: show a page of the job, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class TakeStacks:
    """Action: take the stacks of the job that is shown, and show them."""


@dataclass(frozen=True, slots=True)
class Scroll:
    """Action: move the page of the job by this number of rows."""

    rows: int


Action = Quit | Cancel | Search | Open | Close | TurnPage | ShowPage | TakeStacks | Scroll
