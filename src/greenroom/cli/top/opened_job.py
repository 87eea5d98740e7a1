"""Job that the view shows alone: its report, its log and its stacks. Pure."""

from __future__ import annotations

from typing import Any

from ..job_requests import LogLine
from ..reports import first_label, gap_text, job_text, line_text
from .pages import Page

__all__ = ["OpenedJob"]

_NOT_TAKEN = "The stacks of this job were not taken. Press s to take them: the job goes on."
_NONE_IN_REPORT = "The report has no stacks. They are taken before Greenroom kills a job."


class OpenedJob:
    """Pages of one job, and which of them is shown. ``worker`` is the name of its worker, if the view shows several."""

    def __init__(self, job_id: str, worker: str | None = None) -> None:
        self.id = job_id
        self._name = f"job {job_id}" if worker is None else f"job {job_id} on worker {worker}"
        self.shown = "report"
        """Name of the page that is shown."""
        self.pages = {"report": Page(), "log": Page(is_following=True), "stack": Page(_NOT_TAKEN)}
        self.problem: str | None = None
        """Reason why the worker does not show the job; ``None`` if it does."""
        self.is_taking = False
        """True while the stacks are being taken."""
        self.last_line = 0
        """Number of the last line of the log that is known."""
        self._job: dict[str, Any] | None = None
        self._stacks: str | None = None

    @property
    def page(self) -> Page:
        return self.pages[self.shown]

    @property
    def has_ended(self) -> bool:
        return self._job is not None and self._job["state"] == "ended"

    @property
    def title(self) -> str:
        """Id, worker, state and first label."""
        job = self._job
        if job is None:
            return self._name
        state = f"{job['state']}: {job['outcome']}" if job["outcome"] else job["state"]
        return "  ".join(filter(None, [self._name, state, first_label(job)]))

    def turn(self, step: int) -> None:
        """Show the next page (1), or the one before (-1)."""
        names = list(self.pages)
        self.shown = names[(names.index(self.shown) + step) % len(names)]

    # --- answers of the worker -------------------------------------------------------------------

    def update(self, job: dict[str, Any]) -> None:
        """Set the state of the job, with its report after its end."""
        self._job, self.problem = job, None
        self.pages["report"].replace(job_text(job))
        self._write_stacks()

    def add_line(self, entry: LogLine) -> None:
        """Append a line of the log."""
        self.problem = None
        self.last_line = entry.line["number"]
        if entry.left_out:
            self.pages["log"].append(gap_text(entry.left_out))
        self.pages["log"].append(line_text(entry.line))

    def set_stacks(self, text: str) -> None:
        """Set the stacks that were taken, or the reason why there are none."""
        self._stacks = text
        self.pages["stack"] = Page()
        self._write_stacks()

    def _write_stacks(self) -> None:
        report = None if self._job is None else self._job["report"]
        dump = None if report is None else report["stack_dump"]
        if dump:
            text = f"stacks just before the kill:\n\n{dump}"
        elif self._stacks is not None:
            text = self._stacks
        else:
            text = _NONE_IN_REPORT if self.has_ended else _NOT_TAKEN
        self.pages["stack"].replace(text)
