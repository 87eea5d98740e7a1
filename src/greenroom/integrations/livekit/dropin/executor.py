"""One process of the pool, as LiveKit's worker sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from livekit.agents.ipc.job_executor import JobStatus
from livekit.agents.job import RunningJobInfo
from livekit.agents.utils import shortuuid

from ....pool import JobHandle
from ....report import ExitReport

__all__ = ["Executor"]


class Executor:
    """Implements LiveKit's ``JobExecutor``, as far as anybody but its pool uses it.

    One that has a job has it from the moment of acceptance, so that a job which still waits for a
    process can be terminated, and is waited for by a drain.
    """

    def __init__(self, info: RunningJobInfo | None = None, handle: JobHandle | None = None) -> None:
        self.id = shortuuid("PCEXEC_")
        self.pid: int | None = None
        self.user_arguments: Any | None = None
        self._info = info
        self._handle = handle
        self._status = JobStatus.RUNNING
        self._over = asyncio.Event()

    @property
    def started(self) -> bool:
        return self.pid is not None

    @property
    def running_job(self) -> RunningJobInfo | None:
        """The job, also after its end."""
        return self._info

    @property
    def status(self) -> JobStatus:
        if self._info is None:
            raise RuntimeError("job status not available")
        return self._status

    def ended(self, report: ExitReport) -> None:
        """A job that ended by itself, or as it was told to, without an error is a success."""
        in_order = report.outcome in ("succeeded", "cancelled") and report.error is None
        self._status = JobStatus.SUCCESS if in_order else JobStatus.FAILED

    def refused(self) -> None:
        """It was accepted by the worker, and turned down by the pool."""
        self._status = JobStatus.FAILED

    async def join(self) -> None:
        """Wait until the process is gone, and the worker has been told."""
        await self._over.wait()

    async def aclose(self) -> None:
        """End the job as LiveKit does, and wait for that. A process without a job is the pool's to end."""
        if self._handle is not None:
            self._handle.cancel("parent process shutdown", unless_ending=True)
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
