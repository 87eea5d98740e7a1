"""View of one process of the pool, for LiveKit's worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from livekit.agents.ipc.job_executor import JobStatus
from livekit.agents.job import RunningJobInfo
from livekit.agents.utils import shortuuid

from ....exit_report import ExitReport

__all__ = ["Executor"]


class Executor:
    """Implementation of LiveKit's ``JobExecutor``, with the members that code outside of LiveKit's pool uses.

    A job has an executor from its acceptance on. So the worker can terminate a job that still waits for a process,
    and a drain waits for the job.
    """

    def __init__(self, info: RunningJobInfo | None = None) -> None:
        self.id = shortuuid("PCEXEC_")
        self.pid: int | None = None
        self.user_arguments: Any | None = None
        self._info = info
        self._status = JobStatus.RUNNING
        self._cancel: Callable[[str], object] | None = None
        self._give_up: Callable[[str], object] | None = None
        self._is_settled = asyncio.Event()
        """Set when the pool has taken or rejected the job."""
        self._is_given_up = False
        self._over = asyncio.Event()

    @property
    def started(self) -> bool:
        return self.pid is not None

    @property
    def running_job(self) -> RunningJobInfo | None:
        """Job of this executor, also after the job's end."""
        return self._info

    @property
    def job_id(self) -> str:
        assert self._info is not None  # LiveKit reads this only from an executor with a job
        return self._info.job.id

    @property
    def status(self) -> JobStatus:
        if self._info is None:
            raise RuntimeError("job status not available")
        return self._status

    def ended(self, report: ExitReport) -> None:
        """Note the status of an ended job. An end without an error, by itself or by a cancel, is a success."""
        is_in_order = report.outcome in ("succeeded", "cancelled") and report.error is None
        in_order = is_in_order and not self._is_given_up
        self._status = JobStatus.SUCCESS if in_order else JobStatus.FAILED

    def accepted(self, cancel: Callable[[str], object], give_up: Callable[[str], object]) -> None:
        """Note that the pool has taken the job.

        ``cancel`` ends the job. ``give_up`` ends the job only while it waits for a process.
        """
        self._cancel, self._give_up = cancel, give_up
        self._is_settled.set()

    def refused(self) -> None:
        """Note that the pool has rejected the job. The worker had accepted it."""
        self._status = JobStatus.FAILED
        self._is_settled.set()
        self._over.set()

    def give_up(self, cause: str) -> None:
        """Have the job fail, if it still waits for a process. Only the pool knows whether the job waits."""
        if self._give_up is not None:
            self._give_up(cause)

    def given_up(self) -> None:
        """Note that the job waited and is being cancelled. The pool's loop calls this before it reports the end."""
        self._is_given_up = True

    async def join(self) -> None:
        """Wait until the process is gone, and the worker is notified."""
        await self._over.wait()

    async def aclose(self) -> None:
        """End the job as LiveKit does, and wait for its end. The pool itself ends a process without a job."""
        if self._info is not None:
            await self._is_settled.wait()
            if self._cancel is not None:
                self._cancel("parent process shutdown")
            await self.join()

    def is_over(self) -> None:
        """Release the callers that wait in :meth:`join`."""
        self._over.set()

    def logging_extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"pid": self.pid}
        if self._info is not None:
            job = self._info.job
            extra |= {"job_id": job.id, "room": job.room.name, "room_id": job.room.sid}
            if job.agent_name:
                extra["agent_name"] = job.agent_name
        return extra
