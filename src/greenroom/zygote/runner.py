"""The child's main: prewarm, wait for the one job, run it, clean up."""

from __future__ import annotations

import _thread
import asyncio
import inspect
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from ..app import App
from ..errors import ErrorInfo
from ..job import Job, JobContext, JobProcess, JobRequest
from ..system import prctl, stackdump
from ..system.heartbeat import HeartbeatPage
from ..wire import messages as m
from ..wire.frames import FrameDecoder
from . import open_objects
from .app_thread import AppThread, is_sync, note_remedy
from .performance import Performance, exit_code_of
from .rehearsal import rehearse
from .request import decide

__all__ = ["Runner"]

_logger = logging.getLogger("greenroom")

_CHUNK = 32 * 1024  # a larger buffer would be mapped, and its pages faulted in, for each read
_TO_CHILD = m.Ask | m.Start | m.Shutdown | m.Retire


class Runner:
    """Owns the event loop and the control channel of a child."""

    def __init__(
        self,
        app: App,
        settings: m.ChildSettings,
        proc: JobProcess,
        control_fd: int,
        page: HeartbeatPage,
        facts: m.AppFacts | None = None,
        on_prewarmed: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._proc = proc
        self._page = page
        self._facts = facts
        self._on_prewarmed = on_prewarmed
        self._sock = socket.socket(fileno=control_fd)
        self._sock.setblocking(False)
        self._decoder = FrameDecoder()
        self._loop = asyncio.new_event_loop()
        self._order: asyncio.Future[tuple[m.Start, bytes] | None] = self._loop.create_future()
        self._performance: Performance | None = None
        self._asked: asyncio.Task[None] | None = None
        self._app_thread = AppThread()
        self._is_entrypoint_sync = is_sync(app.entrypoint_fn)
        self._prewarm_begin = 0.0
        self._prewarmed: object = None
        self._pid = os.getpid()
        self._is_on = False

    def run(self) -> int:
        """Live from prewarm to the end of the clean-up; returns the exit code."""
        asyncio.set_event_loop(self._loop)
        self._send(m.Hello(os.getpid(), stackdump.install(), self._facts))
        self._prewarm_begin = time.monotonic()
        try:
            self._prewarmed = self._prewarm_without_loop()
        except Exception as error:
            self._fail_prewarm(error)
            return 1
        except (SystemExit, KeyboardInterrupt) as stop:
            return exit_code_of(stop)
        if self._is_copy:
            return 0
        life = self._loop.create_task(self._live(), name="greenroom")
        # Not among asyncio.all_tasks(): a user who cancels those must not end the supervision of the job.
        asyncio.tasks._unregister_task(life)
        while not life.done():
            try:
                self._loop.run_until_complete(life)
            except (SystemExit, KeyboardInterrupt) as stop:
                # Raised in some task or callback of the user's: asyncio lets it out of the loop, with
                # everything still in place. It ends the job; then callbacks and clean-up go on, also
                # past a second one: what raised the first may do so in every turn of the loop.
                if self._performance is None:
                    return exit_code_of(stop)
                self._performance.exit_requested(stop)
            except RuntimeError as stop:  # loop.stop(): it ends the job in the same way
                if self._performance is None or life.done() or self._loop.is_closed():
                    raise
                self._performance.exit_requested(stop)
        try:
            return life.result()
        except (SystemExit, KeyboardInterrupt) as stop:
            return exit_code_of(stop)

    async def _live(self) -> int:
        self._loop.add_reader(self._sock, self._on_readable)
        self._be_woken_by_signals()
        if not await self._prewarm():
            return 1
        if self._is_copy:
            return 0
        self._on_prewarmed()
        self._start_heartbeat_thread()
        await rehearse(self._proc, self._settings)
        self._send(m.Warm(prewarm_seconds=time.monotonic() - self._prewarm_begin))
        order = await self._order
        if order is None:
            await self._clean_up()
            return 0
        return await self._perform(*order)

    def interrupt(self) -> None:
        """React to a SIGINT as under ``asyncio.run``: the first one ends the job in order, the next one raises here."""
        if self._performance is None or not self._performance.interrupt():
            raise KeyboardInterrupt

    def _be_woken_by_signals(self) -> None:
        """Have a signal that another thread gets wake the loop: its handler is run by the main thread."""
        socket_of_loop = getattr(self._loop, "_csock", None)
        if socket_of_loop is not None:  # else a loop of another kind: it hears with its next heartbeat
            signal.set_wakeup_fd(socket_of_loop.fileno(), warn_on_full_buffer=False)

    def _prewarm_without_loop(self) -> object:
        """Call a sync prewarm before the event loop runs: it may run one of its own. Returns what it returns."""
        prewarm = self._app.prewarm_fn
        if prewarm is None or inspect.iscoroutinefunction(prewarm) or self._is_entrypoint_sync:
            return None
        return prewarm(self._proc)

    async def _prewarm(self) -> bool:
        prewarm, pending = self._app.prewarm_fn, self._prewarmed
        try:
            if prewarm is not None and inspect.iscoroutinefunction(prewarm):
                pending = prewarm(self._proc)
            elif prewarm is not None and self._is_entrypoint_sync:
                pending, error = await self._app_thread.call(prewarm, self._proc)
                if isinstance(error, Exception):
                    self._fail_prewarm(error)  # not raised here: no coroutine can raise a StopIteration
                    return False
                if error is not None:
                    raise error
            if inspect.isawaitable(pending):
                await pending
        except Exception as error:
            self._fail_prewarm(error)
            return False
        return True

    def _fail_prewarm(self, error: Exception) -> None:
        note_remedy(error, "prewarm", is_sync=not inspect.iscoroutinefunction(self._app.prewarm_fn))
        self._send(m.PrewarmFailed(ErrorInfo.of(error)))
        with suppress(Exception):  # a handler or filter of the app's may raise
            _logger.error("prewarm failed", exc_info=error)

    async def _answer(self, ask: m.Ask, metadata: bytes) -> None:
        request = JobRequest(Job.from_payload(ask.job_id, metadata), self._proc, ask.source)
        verdict, answer = await decide(self._app, request)
        await self._send_large(m.Answer(ask.job_id, *verdict), answer)

    async def _perform(self, start: m.Start, metadata: bytes) -> int:
        context = JobContext(Job.from_payload(start.job_id, metadata), self._proc)
        self._performance = Performance(self._app, context, self._settings, self._app_thread)
        # The acknowledgement goes first: from here on, this job is never started anywhere else.
        self._send(m.Started(start.job_id))
        context.on_own_end = lambda: self._send(m.Ending())
        self._is_on = True
        self._beat_in_loop()
        ended, result = await self._performance.run()
        context.on_own_end = lambda: None
        if self._is_copy:
            return ended.exit_code
        await self._send_large(m.Ended(ended.how, ended.told, ended.error), result)
        self._send(await self._performance.run_callbacks())
        await self._clean_up()
        return ended.exit_code

    @property
    def _is_copy(self) -> bool:
        """Whether the user's code has forked, and the copy came back here instead of exiting.

        It has the job's channel and heartbeat page, and must not speak, listen or beat for the job.
        """
        return os.getpid() != self._pid

    # --- control channel -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._is_copy:
            return
        data = self._sock.recv(_CHUNK)
        if not data:
            # Only a supervisor that has died closes this. Where no lifeline has seen to it, leave.
            os._exit(1)
        for frame in self._decoder.feed(data):
            self._handle(m.decode(frame, _TO_CHILD), frame.body)

    def _handle(self, message: m.Message, body: bytes) -> None:
        if isinstance(message, m.Shutdown):
            if self._performance is not None:
                self._performance.shut_down(message)
            return
        if isinstance(message, m.Ask):
            self._asked = self._loop.create_task(self._answer(message, body), name="request")
            return
        # A second job is an error of the supervisor's, and InvalidStateError says so.
        self._order.set_result((message, body) if isinstance(message, m.Start) else None)

    def _send(self, message: m.Message) -> None:
        """Send a small message now. Waits only if the supervisor has not read for a long time."""
        if self._is_copy:
            return
        data = m.encode(message)
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                select.select([], [self._sock], [])

    async def _send_large(self, message: m.Message, body: bytes) -> None:
        await self._loop.sock_sendall(self._sock, m.encode(message, body))

    # --- heartbeat and clean-up ------------------------------------------------------------------

    def _start_heartbeat_thread(self) -> None:
        """Have a thread that beats during the job: if it beats on while the loop does not, the loop is
        blocked but the GIL is not held."""
        # Not threading.Thread, whose start() waits for the thread to run: that is a millisecond of this
        # process's way to idle, and nothing needs the object.
        _thread.start_new_thread(self._beat_in_thread, ())

    def _beat_in_thread(self) -> None:
        prctl.set_name("gr:heartbeat")
        interval = self._settings.heartbeat_interval
        while not self._is_on:
            # It looks now and then instead of being woken: a wake-up would cost the start of the session
            # a tenth of a millisecond, and there is time until a stall can be found.
            time.sleep(4 * interval)
        while True:
            self._page.beat_thread()
            time.sleep(interval)

    def _beat_in_loop(self) -> None:
        if self._is_copy:
            return
        self._page.beat_loop()
        self._loop.call_later(self._settings.heartbeat_interval, self._beat_in_loop)

    async def _clean_up(self) -> None:
        """Cancel the tasks that are left, and finish async generators, as ``asyncio.run`` does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.cleanup_timeout / 2)
        await self._loop.shutdown_asyncgens()
        open_objects.tell_of_errors()
