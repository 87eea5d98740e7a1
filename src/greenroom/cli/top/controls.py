"""Actions of keys: move the selection, cancel a job after a confirmation, quit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cancel", "Controls", "Quit"]

_HINT = "arrows select a session   c cancels it   q quits"


@dataclass(frozen=True, slots=True)
class Quit:
    """Action: close the view."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Action: cancel a job. The user has confirmed this."""

    job_id: str


class Controls:
    """Selection, by job id, and text of the last line."""

    def __init__(self) -> None:
        self.selected: str | None = None
        self.message = ""
        self._asked: str | None = None

    @property
    def line(self) -> str:
        if self._asked is not None:
            return f"cancel job {self._asked}? y/n"
        return self.message or _HINT

    def press(self, key: str, live: Sequence[str], page: int) -> Quit | Cancel | None:
        """Process a key, and return its action, if any.

        ``live`` are the jobs that can be selected, in the order shown. ``page`` is the number of jobs that a page
        key moves.
        """
        self.message = ""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            return Cancel(asked) if key in ("y", "Y") else None
        if key in ("q", "Q"):
            return Quit()
        if key in ("c", "C"):
            self._ask(live)
        else:
            self._move(key, live, page)
        return None

    def _ask(self, live: Sequence[str]) -> None:
        if self.selected in live:
            self._asked = self.selected
        else:
            self.message = "no session is selected" if self.selected is None else f"job {self.selected} has ended"

    def _move(self, key: str, live: Sequence[str], page: int) -> None:
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -len(live), "end": len(live)}
        if key == "escape":
            self.selected = None
        elif key in steps and live:
            # If no job of the list is selected, the first step in any direction selects the first job.
            place = live.index(self.selected) + steps[key] if self.selected in live else 0
            self.selected = live[min(max(place, 0), len(live) - 1)]
