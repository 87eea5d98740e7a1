"""What a job sees: its data, its process, and the ways in which it can end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .wire import payload

if TYPE_CHECKING:
    from .app_service import AppService
    from .zygote.service_client import ServiceClient

__all__ = ["Accept", "Job", "JobContext", "JobProcess", "JobRequest", "Reject"]

ShutdownCallback = Callable[[], object | Awaitable[object]] | Callable[[str], object | Awaitable[object]]

_NOT_YET = object()


class Job:
    """One session's order: its id, and metadata that is plain data (what JSON can hold, or bytes)."""

    __slots__ = ("_decoded", "id", "payload")

    def __init__(self, job_id: str, metadata: Any = None) -> None:
        if not isinstance(job_id, str) or not job_id:
            raise TypeError(f"a job's id is a text that is not empty, not {job_id!r}")
        self.id = job_id
        self.payload = payload.encode(metadata)
        self._decoded: Any = _NOT_YET

    @classmethod
    def from_payload(cls, job_id: str, data: bytes) -> Job:
        """A job whose metadata is encoded already."""
        job = cls.__new__(cls)
        job.id, job.payload, job._decoded = job_id, data, _NOT_YET
        return job

    @property
    def metadata(self) -> Any:
        """What the job was launched with. Decoded at the first access, then kept."""
        if self._decoded is _NOT_YET:
            self._decoded = payload.decode(self.payload)
        return self._decoded

    def __repr__(self) -> str:
        return f"<Job {self.id}>"


class JobProcess:
    """The process a job runs in. ``userdata`` is for what ``prewarm`` prepares and the job uses."""

    __slots__ = ("_services", "generation", "userdata")

    def __init__(self, generation: int, services: Mapping[str, AppService] | None = None) -> None:
        self.generation = generation
        self.userdata: dict[Any, Any] = {}
        self._services = services or {}

    @property
    def pid(self) -> int:
        return os.getpid()

    def service(self, name: str, *, timeout: float | None = None) -> ServiceClient:
        """Find a service of the app: ``await proc.service("stt")(audio)``; see :meth:`JobContext.service`."""
        return self._service(name, timeout, f"process {self.pid}")

    def _service(self, name: str, timeout: float | None, caller: str) -> ServiceClient:
        from .zygote.service_client import client_of  # which most apps do not need

        return client_of(self._services, name, self.generation, timeout, caller)


class JobRequest:
    """A session that is offered to the app's ``request`` function. ``source`` names where it comes from."""

    __slots__ = ("job", "proc", "source")

    def __init__(self, job: Job, proc: JobProcess, source: str) -> None:
        self.job = job
        self.proc = proc
        self.source = source


class Accept:
    """Take the session. ``answer`` is plain data for its source (1 MiB at most), where that can be told something."""

    __slots__ = ("answer",)

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.answer = dict(answer or {})


class Reject:
    """Turn the session down. ``final``: no other worker need be asked either, where the source can tell them."""

    __slots__ = ("final", "reason")

    def __init__(self, reason: str = "", *, final: bool = False) -> None:
        self.reason = reason
        self.final = final


class Cut(NamedTuple):
    """A step of a job's end that was cut off."""

    what: str
    stack: str


class JobContext:
    """A running job's view of itself."""

    def __init__(self, job: Job, proc: JobProcess) -> None:
        self.job = job
        self.proc = proc
        self.shutdown_callbacks: list[ShutdownCallback] = []
        self._loop = asyncio.get_running_loop()
        self.shutdown_requested: asyncio.Future[str] = self._loop.create_future()
        self.requested_by: asyncio.Task[Any] | None = None
        self.requested_in_thread = False
        self.is_awaited = False
        self.shutdown_timeout = 0.0
        """Seconds that all shutdown callbacks have together."""
        self.ends_by_itself = False
        """Its end had begun, of a cause of its own, when an order to end came: that is not what ended it."""
        self.on_own_end: Callable[[], object] = lambda: None
        """For whoever supervises the job: called when its own end begins."""
        self.cuts: list[Cut] = []
        """Steps of its end that were cut off; they stand in the report."""

    def service(self, name: str, *, timeout: float | None = None) -> ServiceClient:
        """Find a service of the app, to call it: ``await ctx.service("stt")(audio)``.

        Arguments and answer are plain data and bytes. In a thread without an event loop:
        ``ctx.service("stt").call(audio)``. ``timeout`` is the seconds for each call, the wait included. Raises
        :class:`~greenroom.ServiceError`, here if there is no such service, and from the call if it has no answer.
        """
        return self.proc._service(name, timeout, f"job {self.job.id}")

    def shutdown(self, reason: str = "") -> None:
        """End this job, from its event loop or from any thread. The first reason wins; called again, it does nothing.

        An entrypoint that waits in :meth:`wait_for_shutdown`, or that calls this itself, goes on to
        return in its own time; any other is cancelled.
        """
        if asyncio._get_running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self._request_shutdown, reason, None, True)
        else:
            self._request_shutdown(reason, asyncio.current_task(), False)

    def _request_shutdown(self, reason: str, by: asyncio.Task[Any] | None, in_thread: bool) -> None:
        if not self.shutdown_requested.done():
            self.requested_by, self.requested_in_thread = by, in_thread
            self.shutdown_requested.set_result(reason)

    def begin_own_end(self) -> None:
        """For integrations: the job has begun to end by itself. It has ``App.end_timeout`` seconds until its callbacks,
        whatever order to end comes later; but one by an operator, or of a drain, bounds that as any other end."""
        if not self.ends_by_itself:
            self.ends_by_itself = True
            self.on_own_end()

    async def wait_for_shutdown(self) -> str:
        """Wait until this job is to end, and return the reason."""
        self.is_awaited = True
        return await asyncio.shield(self.shutdown_requested)

    def add_shutdown_callback(self, fn: ShutdownCallback) -> None:
        """Call ``fn`` when the job has ended, however it did; sync or async, with or without the reason.

        All callbacks run at the same time and have ``shutdown_timeout`` seconds together.
        """
        if not callable(fn):
            raise TypeError(f"a shutdown callback must be callable, not {fn!r}")
        self.shutdown_callbacks.append(fn)
