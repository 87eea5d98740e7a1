"""One process of the pool, as LiveKit's worker sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from livekit.agents.ipc.job_executor import JobStatus
from livekit.agents.job import RunningJobInfo
from livekit.agents.utils import shortuuid

from ....report import ExitReport

__all__ = ["Executor"]


class Executor:
    """Implements LiveKit's ``JobExecutor``, as far as anybody but its pool uses it.

    One that has a job has it from the moment of acceptance, so that a job which still waits for a
    process can be terminated, and is waited for by a drain.
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
        """Whether the pool has taken the job is known."""
        self._is_given_up = False
        self._over = asyncio.Event()

    @property
    def started(self) -> bool:
        return self.pid is not None

    @property
    def running_job(self) -> RunningJobInfo | None:
        """The job, also after its end."""
        return self._info

    @property
    def job_id(self) -> str:
        assert self._info is not None  # only those with a job are asked
        return self._info.job.id

    @property
    def status(self) -> JobStatus:
        if self._info is None:
            raise RuntimeError("job status not available")
        return self._status

    def ended(self, report: ExitReport) -> None:
        """A job that ended by itself, or as it was told to, without an error is a success."""
        is_in_order = report.outcome in ("succeeded", "cancelled") and report.error is None
        in_order = is_in_order and not self._is_given_up
        self._status = JobStatus.SUCCESS if in_order else JobStatus.FAILED

    def accepted(self, cancel: Callable[[str], object], give_up: Callable[[str], object]) -> None:
        """The pool has taken the job, and ends it by ``cancel``; by ``give_up`` only while it waits for a process."""
        self._cancel, self._give_up = cancel, give_up
        self._is_settled.set()

    def refused(self) -> None:
        """It was accepted by the worker, and turned down by the pool."""
        self._status = JobStatus.FAILED
        self._is_settled.set()
        self._over.set()

    def give_up(self, cause: str) -> None:
        """Have it fail now, if it still waits for a process: none becomes warm. Only the pool knows whether it does."""
        if self._give_up is not None:
            self._give_up(cause)

    def given_up(self) -> None:
        """It waited, and is cancelled; called on the pool's loop, before the end can be told."""
        self._is_given_up = True

    async def join(self) -> None:
        """Wait until the process is gone, and the worker has been told."""
        await self._over.wait()

    async def aclose(self) -> None:
        """End the job as LiveKit does, and wait for that. A process without a job is the pool's to end."""
        if self._info is not None:
            await self._is_settled.wait()
            if self._cancel is not None:
                self._cancel("parent process shutdown")
            await self.join()

    def is_over(self) -> None:
        """Release those who wait in :meth:`join`."""
        self._over.set()

    def logging_extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"pid": self.pid}
        if self._info is not None:
            job = self._info.job
            extra |= {"job_id": job.id, "room": job.room.name, "room_id": job.room.sid}
            if job.agent_name:
                extra["agent_name"] = job.agent_name
        return extra
