"""Meaning of keys: select, show or cancel a job, filter the lists, turn pages, quit. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .actions import Action, Cancel, Close, Open, Quit, Scroll, Search, ShowPage, TakeStacks, TurnPage
from .listing import JobRef, Listing
from .prompt import Prompt

__all__ = ["Controls"]

_HINT = "arrows select a session   enter shows it   c cancels it   / filters   q quits"
_HINT_OF_JOB = "tab turns pages   arrows scroll   s shows stacks   c cancels it   esc goes back"
_ALIASES = {"j": "down", "k": "up", " ": "page down", "Q": "q", "C": "c"}
_PAGES = {"r": "report", "l": "log"}
_TURNS = {"tab": 1, "right": 1, "left": -1}
_FAR = 1_000_000_000
"""Rows: more than any page has."""


class Controls:
    """State that keys change: the selected job, the job that is shown alone, a question, and words that are typed."""

    def __init__(self) -> None:
        self.selected: JobRef | None = None
        self.opened: JobRef | None = None
        """Job that is shown alone; ``None`` while the lists are shown."""
        self.is_filtered = False
        """True if the lists show only jobs that match a search."""
        self.message = ""
        self._asked: JobRef | None = None
        self._prompt: Prompt | None = None
        self._words = ""
        """Words that were entered last, to be changed if the user types again."""

    @property
    def line(self) -> str:
        """Text of the last line, unless the user types there."""
        if self._asked is not None:
            return f"cancel job {self._asked.id}? y/n"
        return self.message or (_HINT if self.opened is None else _HINT_OF_JOB)

    @property
    def typed(self) -> str | None:
        """Words that are being typed; ``None`` if the user does not type."""
        return None if self._prompt is None else self._prompt.text

    def press(self, key: str, listing: Listing, page: int) -> Action | None:
        """Process a key, and return its action, if any.

        ``listing`` has the jobs that can be selected. ``page`` is the number of rows that a page key moves.
        """
        self.message = ""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            return Cancel(asked) if key in ("y", "Y") else None
        if self._prompt is not None:
            return self._type(self._prompt, key)
        key = _ALIASES.get(key, key)
        if key == "q":
            return Quit()
        if key == "c":
            self._ask(listing)
            return None
        return self._press_in_list(key, listing, page) if self.opened is None else self._press_in_job(key, page)

    # --- lists -----------------------------------------------------------------------------------

    def _press_in_list(self, key: str, listing: Listing, page: int) -> Action | None:
        if key == "/":
            self._prompt = Prompt(self._words)
        elif key == "escape":
            return self._clear()
        elif key == "enter":
            return self._open()
        else:
            self._select(key, listing.refs, page)
        return None

    def _type(self, prompt: Prompt, key: str) -> Search | None:
        if key == "escape":
            self._prompt = None
        elif key == "enter":
            self._prompt, self._words = None, prompt.text.strip()
            return Search(self._words)
        else:
            prompt.press(key)
        return None

    def _clear(self) -> Search | None:
        if not self.is_filtered:
            self.selected = None
            return None
        self._words = ""
        return Search("")

    def _open(self) -> Open | None:
        if self.selected is None:
            self.message = "no session is selected"
            return None
        self.opened = self.selected
        return Open(self.opened)

    def _ask(self, listing: Listing) -> None:
        job = self.selected if self.opened is None else self.opened
        if job is None:
            self.message = "no session is selected"
        elif job in listing.live_refs:
            self._asked = job
        else:
            self.message = f"job {job.id} has ended"

    def _select(self, key: str, refs: Sequence[JobRef], page: int) -> None:
        step = _steps(page).get(key)
        if step is not None and refs:
            # If no job of the list is selected, the first step in any direction selects the first job.
            place = refs.index(self.selected) + step if self.selected in refs else 0
            self.selected = refs[min(max(place, 0), len(refs) - 1)]

    # --- one job ---------------------------------------------------------------------------------

    def _press_in_job(self, key: str, page: int) -> Action | None:
        if key == "escape":
            self.opened = None
            return Close()
        if key == "s":
            return TakeStacks()
        if key in _PAGES:
            return ShowPage(_PAGES[key])
        if key in _TURNS:
            return TurnPage(_TURNS[key])
        step = _steps(page).get(key)
        return None if step is None else Scroll(step)


def _steps(page: int) -> dict[str, int]:
    return {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -_FAR, "end": _FAR}
