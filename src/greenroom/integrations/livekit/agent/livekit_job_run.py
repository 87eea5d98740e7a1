"""Run of a job through LiveKit's own life cycle (``_JobProc``), in a process of Greenroom's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents.ipc import job_proc_lazy_main, proto
from livekit.agents.job import JobExecutorType, RunningJobInfo
from livekit.agents.utils import aio
from livekit.rtc._ffi_client import FfiClient

from ....errors import GreenroomError
from ....job import Cut, JobContext
from ....zygote.job_run import stack_of
from ..job_order import ENDED_BY_SERVER, Order
from . import running_job
from .blueprint import Part, fill
from .entrypoint_end import SessionEnd, Watch
from .loop_monitor import LoopMonitor
from .outside_loop import outside_loop
from .stack_dumps import dump_on_signal

__all__ = ["Infer", "LiveKitJobRun", "check_release"]

Infer = Callable[[str, bytes], Awaitable[bytes | None]]
"""Function that sends data to the runner of a method, and returns its result. Raises :class:`GreenroomError`."""

_NEWS_OF_THE_ROOM = 0.5
"""Seconds. After a dispatch was deleted, the server waits 3 s before it removes the agent."""

_NEVER_CONNECTED = "the entrypoint returned, and never connected"
_TIME_TO_CONNECT = 10.0
"""Seconds for an agent to connect to its room after its entrypoint has returned: a task of the agent may connect."""

_SHARE_OF_SESSION_END = 0.75
"""Share of ``shutdown_timeout`` after which ``on_session_end`` is cut off. The callbacks get the rest of the time."""

_logger = logging.getLogger("greenroom.livekit")


class _JobProc(job_proc_lazy_main._JobProc):
    """LiveKit's class, which would wait for ever for the end of a job whose setup has failed."""

    setup_failed: asyncio.Future[None]
    when_ending: Callable[[], object]

    def _start_job(self, msg: proto.StartJobRequest) -> None:
        try:
            super()._start_job(msg)
        except Exception as error:
            self.setup_failed.set_exception(error)
        self._shutdown_fut.add_done_callback(lambda _: self.when_ending())

    def is_connected(self) -> bool:
        """Return whether the agent has connected to its room, or is about to."""
        lock = getattr(self._job_ctx, "_lock", None)
        return self._ctx_connect_called or self._room.isconnected() or (lock is not None and lock.locked())


class LiveKitJobRun:
    """LiveKit's part of one process: made in the process's warm-up, and used for one job."""

    def __init__(self, part: Part, infer: Infer, close_timeout: float | None = None) -> None:
        """Run the user's ``setup_fnc``. Raises any error of that function.

        ``close_timeout`` is in seconds. A job fails that takes longer to leave its room and run its callbacks.
        """
        dump_on_signal()
        self._watch = Watch(part.entrypoint_fnc, self._is_ending)
        self._monitor = LoopMonitor()
        self._session_end = None if part.session_end_fnc is None else SessionEnd(part.session_end_fnc)
        self._proc = _JobProc(**_job_proc_arguments(part, self._watch, self._session_end))
        self._link = _Link(infer)
        self._close_timeout = close_timeout
        self._is_overdue = False
        self._is_passed_on = False
        """True if LiveKit's sequence begins with a shutdown request from Greenroom."""
        request = _initialize_request(part)
        with outside_loop():
            self._proc.initialize(request, self._link)  # type: ignore[arg-type]  # LiveKit calls send() only
        assert FfiClient.instance is not None  # this starts the runtime with its threads: no connect waits for them
        self._life: asyncio.Task[None]

    async def run(self, context: JobContext, job: RunningJobInfo) -> dict[str, Any]:
        """Run the job until LiveKit's sequence comes to the shutdown callbacks.

        The rest of the sequence is one of Greenroom's shutdown callbacks. With a ``close_timeout`` it runs here.
        """
        loop = asyncio.get_running_loop()
        self._proc.setup_failed = loop.create_future()
        self._proc.when_ending = lambda: None if self._is_passed_on else self._begin_own_end(context)
        self._own_end: asyncio.Future[None] = loop.create_future()
        if self._session_end is not None:
            self._session_end.when_cut = lambda *cut: context.cuts.append(Cut(*cut))
        request = proto.StartJobRequest()
        request.running_job = job
        self._life = loop.create_task(self._proc.entrypoint(self._link.messages), name="livekit")
        context.add_shutdown_callback(lambda: self._finish(context.shutdown_timeout))
        self._watch.when_entered = self._monitor.start
        self._watch.when_returned = self._expect_connection
        self._link.messages.send_nowait(request)
        await self._until_the_end(context)
        if self._close_timeout is not None:
            await self._close_within(self._close_timeout)
        if self._watch.error is not None:
            raise self._watch.error  # LiveKit has logged the error, and would report a success
        if not self._is_ending():
            raise RuntimeError("LiveKit's life cycle of the job ended too early. LiveKit has logged the cause")
        return {"ended_by": self._proc._shutdown_fut.result().reason}

    async def _until_the_end(self, context: JobContext) -> None:
        request = asyncio.create_task(context.wait_for_shutdown(), name="livekit-shutdown")
        ends: set[asyncio.Future[Any]] = {self._life, self._link.exiting, self._proc.setup_failed}
        try:
            await asyncio.wait({*ends, self._own_end, request}, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                await self._wait_for_room_news(request.result(), ends)
            if self._has_its_own_end or any(end.done() for end in ends):
                self._begin_own_end(context)
            else:
                self._pass_on(context)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Half of shutdown_timeout is over. From here on, LiveKit's sequence runs as a shutdown callback.
            # A job that ends by itself comes here only if a drain or an operator limits its time, too.
            self._watch.cut_off()
            self._pass_on(context)
            if not context.ends_by_itself:
                raise
        finally:
            request.cancel()
        for end in (self._proc.setup_failed, self._life):
            if end.done():
                end.result()

    async def _wait_for_room_news(self, reason: str, ends: set[asyncio.Future[Any]]) -> None:
        """Wait a moment for news of the room, if the server has ended this job.

        The agent may have left, or the room may be gone. The room's own connection reports that, and may report it
        later.
        """
        if reason == ENDED_BY_SERVER and not self._has_its_own_end:
            news = {*ends, self._own_end}
            await asyncio.wait(news, timeout=_NEWS_OF_THE_ROOM, return_when=asyncio.FIRST_COMPLETED)

    @property
    def _has_its_own_end(self) -> bool:
        """True if the job's own code has begun its end. Valid until a shutdown request is passed on to LiveKit."""
        return self._is_ending() or self._watch.error is not None

    def _begin_own_end(self, context: JobContext) -> None:
        context.begin_own_end()
        if not self._own_end.done():
            self._own_end.set_result(None)

    def _expect_connection(self) -> None:
        """End the job if its agent does not connect in time after the entrypoint's return.

        LiveKit would keep a process for ever if its agent never connects.
        """
        asyncio.get_running_loop().call_later(_TIME_TO_CONNECT, self._end_unless_connected)

    def _end_unless_connected(self) -> None:
        if not self._is_ending() and not self._proc.is_connected():
            seconds = f"{_TIME_TO_CONNECT:g} s"
            _logger.warning("the job ends: its entrypoint has returned, and it has not connected within %s", seconds)
            self._proc._job_ctx.shutdown(_NEVER_CONNECTED)

    def _pass_on(self, context: JobContext) -> None:
        """Pass a shutdown request on to LiveKit, if there is one. LiveKit ignores it when its sequence has begun."""
        if context.shutdown_requested.done():
            self._is_passed_on = True
            self._link.messages.send_nowait(proto.ShutdownRequest(reason=context.shutdown_requested.result()))

    async def _close_within(self, seconds: float) -> None:
        await asyncio.wait({self._life}, timeout=seconds)
        if not self._life.done():
            self._is_overdue = True
            _log_where_it_hangs(f"{seconds:g} s")
            raise TimeoutError(f"leaving the room and the shutdown callbacks took longer than {seconds:g} s")

    async def _finish(self, seconds: float) -> None:
        """Wait for the rest of LiveKit's sequence. It has ``shutdown_timeout`` seconds, like all shutdown callbacks."""
        if self._is_overdue:
            return  # the sequence has used its time, and ends with the process
        if not self._proc.has_running_job:
            self._life.cancel()
        if self._session_end is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(_SHARE_OF_SESSION_END * seconds, self._session_end.cut_off)
        try:
            await asyncio.wait({self._life})
        except asyncio.CancelledError:
            _log_where_it_hangs("shutdown_timeout")
            raise
        finally:
            self._monitor.stop()
        if not self._life.cancelled():
            self._life.result()

    def _is_ending(self) -> bool:
        """Return whether LiveKit's sequence has begun. In it, LiveKit may cancel the entrypoint."""
        begun = getattr(self._proc, "_shutdown_fut", None)
        return begun is None or begun.done()


class _Link:
    """Replacement of LiveKit's channel to its worker: receives the messages of the life cycle, and sends it some."""

    def __init__(self, infer: Infer) -> None:
        self.messages: aio.Chan[Any] = aio.Chan()
        self.exiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run_inference = infer
        self._requests: set[asyncio.Task[None]] = set()

    async def send(self, message: Any) -> None:
        if isinstance(message, proto.Exiting):
            # The session is closed, and on_session_end has run. Next, the agent leaves the room, and callbacks run.
            if not self.exiting.done():
                self.exiting.set_result(None)
        elif isinstance(message, proto.InferenceRequest):
            request = asyncio.create_task(self._infer(message), name="livekit-inference")
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _infer(self, request: proto.InferenceRequest) -> None:
        data, error = None, ""
        try:
            data = await self._run_inference(request.method, request.data)
        except GreenroomError as failure:
            error = str(failure)
        response = proto.InferenceResponse(request_id=request.request_id, data=data, error=error)
        if not self.messages.closed:
            self.messages.send_nowait(response)


def check_release(part: Part) -> None:
    """Raise :class:`AppLoadError`, before any fork, if Greenroom cannot drive this release of livekit-agents."""
    _job_proc_arguments(part, part.entrypoint_fnc, part.session_end_fnc)
    _initialize_request(part)
    running_job.from_order(Order(job=b""))


def _job_proc_arguments(part: Part, entrypoint: Any, session_end: Any) -> dict[str, Any]:
    return fill(
        job_proc_lazy_main._JobProc,
        {
            "initialize_process_fnc": part.setup_fnc,
            "job_entrypoint_fnc": entrypoint,
            "session_end_fnc": session_end,
            "simulation_end_fnc": part.simulation_end_fnc,
            "session_end_timeout": part.session_end_timeout,
            "executor_type": JobExecutorType.PROCESS,
            "user_arguments": None,
        },
    )


def _initialize_request(part: Part) -> proto.InitializeRequest:
    return proto.InitializeRequest(**fill(proto.InitializeRequest, {"http_proxy": part.http_proxy or ""}))


def _log_where_it_hangs(limit: str) -> None:
    names = ("job_task", "job_user_entrypoint", "on_session_end", "job_shutdown_callback")
    for task in asyncio.all_tasks():
        if task.get_name() in names:
            _logger.error("LiveKit's shutdown sequence did not end within %s; it was in %s", limit, stack_of(task))
