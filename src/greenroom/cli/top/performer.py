"""Performance of actions: requests to the workers, and the job that is shown alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..client import Client
from ..job_requests import cancel_job, stacks_of
from ..printing import Failure
from ..text import clock
from ..workers import Workers
from .actions import Action, Cancel, Close, Open, Scroll, Search, ShowPage, TakeStacks, TurnPage
from .controls import Controls
from .finder import Finder
from .job_feed import JobFeed
from .listing import JobRef
from .opened_job import OpenedJob
from .tasks import Tasks
from .watched import Watched

__all__ = ["Performer"]


class Performer:
    """Performer of all actions but ``Quit``. No action is awaited, and failures become messages."""

    def __init__(
        self,
        workers: Workers,
        watched: Sequence[Watched],
        controls: Controls,
        tasks: Tasks,
        wake: Callable[[], None],
    ) -> None:
        self.finder = Finder(workers, watched, wake)
        self.opened: OpenedJob | None = None
        """Job that is shown alone; ``None`` while the lists are shown."""
        self._workers = workers
        self._controls = controls
        self._tasks = tasks
        self._wake = wake
        self._client: Client
        """Client of the worker that has the job that is shown alone."""
        self._stop_reading: Callable[[], object] | None = None

    def perform(self, action: Action) -> None:
        match action:
            case Cancel(job):
                self._tasks.start(self._cancel(job))
            case Search(words):
                self._search(words)
            case Open(job):
                self._open(job)
            case Close():
                self._close()
            case _ if self.opened is not None:
                self._change(action, self.opened)

    def _change(self, action: Action, job: OpenedJob) -> None:
        """Change what is shown of a job."""
        match action:
            case TurnPage(step):
                job.turn(step)
            case ShowPage(name):
                job.shown = name
            case Scroll(rows):
                job.page.scroll(rows)
            case TakeStacks():
                job.shown = "stack"
                if not (job.has_ended or job.is_taking):
                    self._tasks.start(self._take_stacks(self._client, job))

    # --- one job ---------------------------------------------------------------------------------

    def _open(self, job: JobRef) -> None:
        self._close()
        self._client = self._workers.clients[job.worker]
        self.opened = OpenedJob(job.id, self._workers.name_of(self._client) if self._workers.are_several else None)
        self._stop_reading = self._tasks.start(JobFeed(self._client, self.opened, self._wake).run())

    def _close(self) -> None:
        self.opened = None
        if self._stop_reading is not None:
            self._stop_reading()
            self._stop_reading = None

    async def _take_stacks(self, client: Client, job: OpenedJob) -> None:
        job.is_taking = True
        job.set_stacks("The stacks are being taken. This takes some seconds if C code holds the interpreter lock.")
        self._wake()
        try:
            stacks = (await stacks_of(client, job.id))["stacks"]
            job.set_stacks(f"stacks at {clock(time.time())}; s takes them again:\n\n{stacks}")
        except Failure as error:
            job.set_stacks(f"The stacks could not be taken: {error}")
        finally:
            job.is_taking = False
        self._wake()

    async def _cancel(self, job: JobRef) -> None:
        try:
            answer = await cancel_job(self._workers.clients[job.worker], job.id, "cancelled in greenroom top")
            progress = "had already ended" if answer.status == 200 else "is being cancelled"
            self._controls.message = f"job {job.id} {progress}"
        except Failure as error:
            self._controls.message = f"job {job.id} could not be cancelled: {error}"
        self._wake()

    # --- filter ----------------------------------------------------------------------------------

    def _search(self, words: str) -> None:
        if words:
            self._tasks.start(self._filter(words))
            return
        self.finder.clear()
        self._controls.is_filtered = False

    async def _filter(self, words: str) -> None:
        try:
            if await self.finder.search(words):
                self._controls.is_filtered = True
        except Failure as error:
            self._controls.message = f"the filter stays as it was: {error}"
        self._wake()
