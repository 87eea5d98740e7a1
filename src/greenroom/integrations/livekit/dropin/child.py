"""In the zygote and its children: LiveKit's own sequence for a job, between Greenroom's prewarm and its report."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from livekit.agents.ipc import job_proc_lazy_main, proto
from livekit.agents.job import JobExecutorType
from livekit.agents.utils import aio
from livekit.rtc._ffi_client import FfiClient

from ....app import App
from ....errors import AppLoadError, GreenroomError
from ....job import JobContext, JobProcess
from . import job_info
from .inference import infer
from .references import resolve

__all__ = ["make_app"]


def make_app(settings: Mapping[str, Any]) -> App:
    """The app of a worker; the settings are those of ``settings.child_settings``. Imports the user's code."""
    functions = {name: resolve(found) for name, found in settings["functions"].items()}
    app = App()
    role = _Role(functions, settings)
    app.preload(role.preload)
    app.prewarm(role.prewarm)
    app.entrypoint(role.entrypoint)
    return app


class _Role:
    """The app's functions; in each process a copy of its own."""

    def __init__(self, functions: Mapping[str, Callable[..., Any] | None], settings: Mapping[str, Any]) -> None:
        self._functions = functions
        self._settings = settings
        self._performance: _Performance

    def preload(self) -> None:
        for name in self._settings["preload"]:
            importlib.import_module(name)
        if FfiClient._instance is not None:
            raise AppLoadError(
                "the app has started LiveKit's native runtime while it was imported (an AudioSource, AudioStream, "
                "AudioResampler or Room.connect at the top level): its threads do not survive a fork. Make such "
                "objects in the entrypoint, or in the prewarm function"
            )
        for name, level in self._settings["log_levels"].items():
            logging.getLogger(name).setLevel(level)

    async def prewarm(self, process: JobProcess) -> None:
        self._performance = _Performance(self._functions, self._settings)
        assert FfiClient.instance is not None  # started here, with its threads, so that no call waits for it

    async def entrypoint(self, context: JobContext) -> dict[str, str]:
        return await self._performance.run(context)


class _JobProc(job_proc_lazy_main._JobProc):
    """LiveKit's, which would wait for ever after a job that could not be set up."""

    failure: BaseException | None = None

    def _start_job(self, msg: proto.StartJobRequest) -> None:
        try:
            super()._start_job(msg)
        except Exception as error:
            self.failure = error
            self._exit_proc_flag.set()


class _Performance:
    """One process's side of LiveKit."""

    def __init__(self, functions: Mapping[str, Callable[..., Any] | None], settings: Mapping[str, Any]) -> None:
        self._close_timeout: float = settings["close_timeout"]
        self._link = _Link(settings["inference"])
        entrypoint = functions["job_entrypoint_fnc"]
        assert entrypoint is not None
        known = {
            **functions,
            "job_entrypoint_fnc": self._watched(entrypoint),
            "session_end_timeout": settings["session_end_timeout"],
            "executor_type": JobExecutorType.PROCESS,
            "user_arguments": None,
        }
        wanted = inspect.signature(job_proc_lazy_main._JobProc).parameters
        self._proc = _JobProc(**{name: value for name, value in known.items() if name in wanted})
        with _outside_loop():  # as LiveKit does, whose prewarm functions may run loops of their own
            self._proc.initialize(proto.InitializeRequest(http_proxy=settings["http_proxy"]), self._link)  # type: ignore[arg-type]

    async def run(self, context: JobContext) -> dict[str, str]:
        """From the start of the job to the end of LiveKit's sequence. Raises what the entrypoint raised."""
        order = proto.StartJobRequest()
        order.running_job = job_info.from_plain(context.job.metadata)
        life = asyncio.create_task(self._proc.entrypoint(self._link.messages), name="livekit")
        told = asyncio.create_task(context.wait_for_shutdown(), name="livekit-shutdown")
        self._link.messages.send_nowait(order)
        with _monitored():
            ends: set[asyncio.Future[Any]] = {life, self._link.exiting}
            await asyncio.wait({*ends, told}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                self._link.messages.send_nowait(proto.ShutdownRequest())
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({life}, timeout=self._close_timeout)
        was_told = told.done()
        told.cancel()
        return self._outcome(life, was_told)

    def _outcome(self, life: asyncio.Task[None], was_told: bool) -> dict[str, str]:
        if not life.done():
            raise TimeoutError(
                f"leaving the room and the shutdown callbacks took longer than shutdown_process_timeout "
                f"({self._close_timeout:g} s)"
            )
        if self._proc.failure is not None and not was_told:
            raise self._proc.failure  # LiveKit has logged it, and would report a success
        life.result()
        return {"ended_by": self._link.reason}

    def _watched(self, entrypoint: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(entrypoint)
        async def watched(context: Any) -> None:
            try:
                await entrypoint(context)
            except asyncio.CancelledError as error:
                if self._proc._shutdown_fut.done():
                    raise
                # Nothing had asked the job to end, and LiveKit would wait for ever for its end.
                self._proc.failure = RuntimeError("the entrypoint was cancelled from within the job")
                raise self._proc.failure from error
            except Exception as error:
                self._proc.failure = error
                raise

        return watched


class _Link:
    """In the place of LiveKit's channel to its worker: takes what a job sends, and gives it what it waits for."""

    def __init__(self, inference: str) -> None:
        self.messages: aio.Chan[Any] = aio.Chan()
        self.exiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self._inference = inference
        self._requests: set[asyncio.Task[None]] = set()

    async def send(self, message: Any) -> None:
        if isinstance(message, proto.Exiting):
            self.reason = message.reason
            if not self.exiting.done():
                self.exiting.set_result(None)
        elif isinstance(message, proto.InferenceRequest):
            request = asyncio.create_task(self._infer(message), name="livekit-inference")
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _infer(self, request: proto.InferenceRequest) -> None:
        response = proto.InferenceResponse(request_id=request.request_id)
        try:
            response.data = await infer(self._inference, request.method, request.data)
        except GreenroomError as error:
            response.error = str(error)
        if not self.messages.closed:
            self.messages.send_nowait(response)


@contextmanager
def _outside_loop() -> Iterator[None]:
    """Step out of the running loop for as long as nothing is awaited."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio.set_event_loop(loop)
        asyncio._set_running_loop(loop)
        asyncio.tasks._enter_task(loop, task)


@contextmanager
def _monitored() -> Iterator[None]:
    """LiveKit's own warnings and spans for a loop that is blocked for a moment (from 1.8)."""
    try:
        monitor = importlib.import_module("livekit.agents.telemetry.loop_monitor")
    except ImportError:
        yield
        return
    loop = asyncio.get_running_loop()
    monitor.start_monitoring(loop, name="job")
    try:
        yield
    finally:
        monitor.stop_monitoring(loop)
