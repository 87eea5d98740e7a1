"""Drawing of one job as lines of text that fit into the terminal. Pure."""

from __future__ import annotations

from rich.text import Text

from ..text import one_line
from .draw import Scene, fitted, heading
from .head import LOST
from .opened_job import OpenedJob
from .pages import Page, Window

__all__ = ["draw_job"]

_FRAME = 3
"""Lines that are always there: the title, the names of the pages, the last line."""


def draw_job(job: OpenedJob, scene: Scene, *, is_lost: bool = False) -> list[Text]:
    """Return as many lines as the terminal has, with the page that is shown.

    ``is_lost`` is true if the worker of the job does not answer, so that the page shows an old state.
    """
    height = max((scene.height or 0) - _FRAME, 1)
    window = job.page.window(scene.width, height)
    lines = [heading(_title(job, is_lost), scene.width), _names(job, window, height)]
    return fitted([*lines, *map(Text, window.rows)], scene)


def _title(job: OpenedJob, is_lost: bool) -> Text:
    title = Text(one_line(job.title), "bold")
    problem = LOST if is_lost else job.problem
    # The problem comes first, because the title may be long.
    return title if problem is None else Text.assemble((one_line(problem), "bold red"), "  ", title)


def _names(job: OpenedJob, window: Window, height: int) -> Text:
    """Return the names of the pages, the shown one in reverse, and the place on it."""
    line = Text()
    for name in job.pages:
        line.append(f" {name} ", "reverse" if name == job.shown else "bright_black")
    return line.append(_place(job, job.page, window, height))


def _place(job: OpenedJob, page: Page, window: Window, height: int) -> str:
    following = ", following" if page.is_following and not job.has_ended else ""
    if window.total <= height:
        return f"  all rows{following}"
    return f"  rows {window.first + 1} to {window.first + len(window.rows)} of {window.total}{following}"
