"""One accepted job on its way from ``launch()`` to its report, and the caller's handle on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ..errors import GreenroomError, fresh
from ..report import ExitReport
from ..wire.messages import Answer
from .clock import Timer
from .exits import Decision
from .labels import Labels, tidy_labels
from .states import State

if TYPE_CHECKING:
    from .process import Process

__all__ = ["JobHandle", "JobState", "Launch"]

JobState = Literal["waiting", "reserved", "starting", "running", "draining", "ending", "ended"]

_STATES: dict[State, JobState] = {
    State.RESERVED: "reserved",
    State.CLAIMED: "starting",
    State.RUNNING: "running",
    State.ENDING: "draining",
    State.DRAINING: "draining",
    State.KILLING: "ending",
    State.EXITED: "ending",
    State.REAPED: "ending",
}


class Launch:
    """What the pool knows of a job it has accepted, or holds a process for."""

    def __init__(
        self, job_id: str, metadata: bytes, expires_at: float, source: str, labels: Labels | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.job_id = job_id
        self.metadata = metadata
        self.expires_at = expires_at
        """On the pool's clock: by then it has started, or it is given up."""
        self.source = source
        """Where the session comes from."""
        self.labels = tidy_labels(labels)
        """What it is called there."""
        self.is_held = False
        """A process is kept for it, and the order to start it is still to come."""
        self.reserved: asyncio.Future[GreenroomError | None] = loop.create_future()
        """Done when a process is kept for it; with an error, when none will be."""
        self.answer: asyncio.Future[tuple[Answer, bytes]] | None = None
        """What the app's request function says, while it is asked."""
        self.launch_type: Literal["warm", "cold"] = "cold"
        self.attempts = 0
        self.process: Process | None = None
        self.expiry: Timer | None = None
        self.requested_at = self.queued_at = time.monotonic()
        self.waited = 0.0
        """Seconds until a process could be kept for it."""
        self.claimed_at: float | None = None
        self.started_at: float | None = None
        self.given_up: GreenroomError | None = None
        """Why nothing came of what it was held for."""
        self.cancelled: Decision | None = None
        """It is not wanted any more: if it has not started, it must not."""
        self.started: asyncio.Future[GreenroomError | None] = loop.create_future()
        """Done when it has started; with an error, when it will not (a value: see :func:`~greenroom.errors.fresh`)."""
        self.report: asyncio.Future[ExitReport] = loop.create_future()

    @property
    def state(self) -> JobState:
        if self.report.done():
            return "ended"
        return "waiting" if self.process is None else _STATES.get(self.process.state, "starting")

    @property
    def is_being_asked(self) -> bool:
        """The app's request function runs, in the process that is kept for it."""
        return self.answer is not None and not self.answer.done()

    def answered(self, answer: Answer, body: bytes) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((answer, body))

    def has_started(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        if self.started_at is None:
            self.started_at = time.monotonic()
        if not self.started.done():
            self.started.set_result(None)
        self.metadata = b""  # of no more use, and perhaps large

    def will_not_start(self, error: GreenroomError) -> None:
        """Whoever waits for its start learns so."""
        self.metadata = b""
        for future in (self.reserved, self.started):
            if not future.done():
                future.set_result(error)

    def end(self, report: ExitReport, error: GreenroomError | None = None) -> None:
        """It is over; whoever waits for its start learns why there was none."""
        if self.expiry is not None:
            self.expiry.cancel()
        if error is not None:
            self.will_not_start(error)
        elif not self.started.done():
            self.started.set_result(None)
        self.report.set_result(report)

    def give_up(self, error: GreenroomError) -> None:
        """What it was held for did not come: there is no job, and no report."""
        if self.expiry is not None:
            self.expiry.cancel()
        self.is_held = False
        self.given_up = error
        self.will_not_start(error)


class JobHandle:
    """A job, for the one who launched it."""

    def __init__(self, launch: Launch, cancel: Callable[[Launch, Decision], None]) -> None:
        self._launch = launch
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The job's id: the one it was given, or one made for it."""
        return self._launch.job_id

    @property
    def labels(self) -> Labels:
        """What the job's source calls it: the room of a LiveKit call, say."""
        return self._launch.labels

    @property
    def pid(self) -> int | None:
        """The process that runs, or ran, the job; ``None`` while it waits for one."""
        return self._launch.process.pid if self._launch.process else None

    @property
    def state(self) -> JobState:
        return self._launch.state

    @property
    def launch_type(self) -> Literal["warm", "cold"]:
        """``warm`` if an idle process was there at once; ``cold`` if the job had to wait for one."""
        return self._launch.launch_type

    @property
    def start_seconds(self) -> float | None:
        """From the request until the process had acknowledged the job; ``None`` before that."""
        launch = self._launch
        return None if launch.started_at is None else launch.started_at - launch.requested_at

    @property
    def report(self) -> ExitReport | None:
        """The report, once the job has ended."""
        return self._launch.report.result() if self._launch.report.done() else None

    async def started(self) -> None:
        """Wait until the job has started. Raises :class:`NoCapacity` or :class:`LaunchError` if it will not."""
        error = await asyncio.shield(self._launch.started)
        if error is not None:
            raise fresh(error)

    async def wait(self) -> ExitReport:
        """Wait for the end. Never raises for what the job did: the report tells it."""
        return await asyncio.shield(self._launch.report)

    def cancel(self, reason: str = "", *, unless_ending: bool = False) -> None:
        """End the job: one that waits never starts, one that runs is told. Again, or too late, it does nothing.

        ``unless_ending`` leaves a job alone that has begun to end by itself (a LiveKit agent whose room is gone).
        """
        self._cancel(self._launch, Decision("cancelled", reason or "it was cancelled", unless_ending))
