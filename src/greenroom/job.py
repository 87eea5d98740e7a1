"""Objects that a job works with: its data, its process and its context."""

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
_current: list[Job | None] = [None]
"""Job of this process. A list, since a change of a global or of a class has Python look up names anew."""


class Job:
    """Job: an id, and metadata that is plain data (JSON or bytes)."""

    __slots__ = ("_decoded", "id", "payload", "trace_parent")

    def __init__(self, job_id: str, metadata: Any = None) -> None:
        if not isinstance(job_id, str) or not job_id:
            raise TypeError(f"job_id is {job_id!r}; it must be a string that is not empty")
        self.id = job_id
        """Id of the job."""
        self.payload = payload.encode(metadata)
        self.trace_parent: str | None = None
        """W3C Trace Context (``traceparent``) for the spans of the job itself, in its process; ``None`` without one.

        With tracing on, the parent is Greenroom's span ``run``. Otherwise it is the span of the caller."""
        self._decoded: Any = _NOT_YET

    @classmethod
    def current(cls) -> Job | None:
        """Return the job of this process; ``None`` before its start, and in any other process."""
        return _current[0]

    @classmethod
    def from_payload(cls, job_id: str, data: bytes, trace_parent: str | None = None) -> Job:
        """For integrations: return a job whose metadata is already encoded."""
        job = cls.__new__(cls)
        job.id, job.payload, job.trace_parent, job._decoded = job_id, data, trace_parent, _NOT_YET
        return job

    def make_current(self) -> None:
        """For integrations: make this the job of this process."""
        _current[0] = self

    @property
    def metadata(self) -> Any:
        """Metadata of the launch. The first access decodes it."""
        if self._decoded is _NOT_YET:
            self._decoded = payload.decode(self.payload)
        return self._decoded

    def __repr__(self) -> str:
        return f"<Job {self.id}>"


class JobProcess:
    """Process in which a job runs."""

    __slots__ = ("_services", "generation", "userdata")

    def __init__(self, generation: int, services: Mapping[str, AppService] | None = None) -> None:
        self.generation = generation
        """Number of the generation of code."""
        self.userdata: dict[Any, Any] = {}
        """Objects that ``prewarm`` keeps for the entrypoint."""
        self._services = services or {}

    @property
    def pid(self) -> int:
        """Process id of the operating system."""
        return os.getpid()

    def service(self, name: str, *, timeout: float | None = None) -> ServiceClient:
        """Return a client of a service: ``await proc.service("stt")(audio)``. See :meth:`JobContext.service`."""
        return self._service(name, timeout, f"process {self.pid}")

    def _service(self, name: str, timeout: float | None, caller: str) -> ServiceClient:
        from .zygote.service_client import client_of  # imported late: most apps do not need it

        return client_of(self._services, name, self.generation, timeout, caller)


class JobRequest:
    """Offer of a job, for the app's ``request`` function."""

    __slots__ = ("job", "proc", "source")

    def __init__(self, job: Job, proc: JobProcess, source: str) -> None:
        self.job = job
        """Job that is offered."""
        self.proc = proc
        """Resident process, in which ``request`` runs."""
        self.source = source
        """Name of the source, such as ``http`` or ``livekit``."""


class Accept:
    """Acceptance of an offered job."""

    __slots__ = ("answer",)

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.answer = dict(answer or {})
        """Plain data (1 MiB at most) that the source passes on, if it can."""


class Reject:
    """Rejection of an offered job."""

    __slots__ = ("final", "reason")

    def __init__(self, reason: str = "", *, final: bool = False) -> None:
        self.reason = reason
        """Text for the log and for the caller."""
        self.final = final
        """True if the source should offer the job to no other worker."""


class Cut(NamedTuple):
    """Step of a job's end that was cut off."""

    what: str
    stack: str


class JobContext:
    """Context of a running job."""

    def __init__(self, job: Job, proc: JobProcess) -> None:
        self.job = job
        """Job with its metadata."""
        self.proc = proc
        """Process of the job, with the objects of ``prewarm``."""
        self.shutdown_callbacks: list[ShutdownCallback] = []
        self._loop = asyncio.get_running_loop()
        self.shutdown_requested: asyncio.Future[str] = self._loop.create_future()
        self.requested_by: asyncio.Task[Any] | None = None
        self.requested_in_thread = False
        self.is_awaited = False
        self.shutdown_timeout = 0.0
        """For integrations: seconds that all shutdown callbacks have together."""
        self.ends_by_itself = False
        """For integrations: true if the job began to end by itself before a request to end came."""
        self.on_own_end: Callable[[], object] = lambda: None
        """For integrations: function that is called when the job's own end begins."""
        self.cuts: list[Cut] = []
        """For integrations: steps of the end that were cut off, for the report."""

    def service(self, name: str, *, timeout: float | None = None) -> ServiceClient:
        """Return a client of a service: ``await ctx.service("stt")(audio)``.

        Arguments and answers are plain data and bytes. In a thread without an event loop, write
        ``ctx.service("stt").call(audio)``. ``timeout`` is the number of seconds for each call, the wait included.
        Raises :class:`~greenroom.ServiceError` if the app has no service of this name.
        """
        return self.proc._service(name, timeout, f"job {self.job.id}")

    def shutdown(self, reason: str = "") -> None:
        """End this job. May be called on any thread. Only the first call has an effect.

        An entrypoint that waits in :meth:`wait_for_shutdown`, or that made this call, goes on and can return. Any other
        entrypoint is cancelled.
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
        """For integrations: note that the job has begun to end by itself.

        The job then has ``App.end_timeout`` seconds until its callbacks. A later request to end changes nothing,
        unless the request comes from an operator or a drain.
        """
        if not self.ends_by_itself:
            self.ends_by_itself = True
            self.on_own_end()

    async def wait_for_shutdown(self) -> str:
        """Wait until the job must end, and return the reason."""
        self.is_awaited = True
        return await asyncio.shield(self.shutdown_requested)

    def add_shutdown_callback(self, fn: ShutdownCallback) -> None:
        """Register a function, sync or async, that is called after the entrypoint, also after an error.

        The function takes no argument, or the reason of the end. All callbacks run at the same time and have
        ``shutdown_timeout`` seconds together.
        """
        if not callable(fn):
            raise TypeError(f"a shutdown callback must be callable, not {fn!r}")
        self.shutdown_callbacks.append(fn)
