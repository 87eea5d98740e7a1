"""Main part of the child: runs prewarm, waits for the one job, runs this job, and cleans up.

This code runs in the child. The messages to the supervisor, in a normal life, are ``Hello``, ``Warm``, ``Started``,
``Ended`` and ``CleaningUp``. A resident process gets questions (``Ask``) and news in the place of a job.
"""

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
from typing import Any, NamedTuple

from ..app import App
from ..app_facts import AppFacts
from ..errors import ErrorInfo
from ..job import Job, JobContext, JobProcess
from ..system import prctl, stackdump
from ..system.heartbeat import HeartbeatPage
from ..wire import messages as m
from ..wire.frames import FrameDecoder
from . import open_objects
from .app_thread import AppThread, is_sync, note_remedy
from .job_run import JobRun, exit_code_of
from .resident_process import Resident
from .warmup_run import warm_up

__all__ = ["ChildMain", "Spawned"]

_logger = logging.getLogger("greenroom")

_CHUNK = 32 * 1024  # bytes of one read; for a larger buffer, each read would map memory and fault in its pages
_TO_CHILD = m.Ask | m.Withdraw | m.News | m.Start | m.Shutdown | m.Retire


class Spawned(NamedTuple):
    """What a spawned process has found out itself, because it has no zygote."""

    facts: AppFacts
    missing_walls: dict[str, Any] | None


class ChildMain:
    """Owner of a child's event loop and control channel. Other code calls :meth:`run` once, and then exits.

    ``on_prewarmed`` is called when prewarm has returned. ``spawned`` is what a spawned process sends with ``Hello``.
    """

    def __init__(
        self,
        app: App,
        settings: m.ChildSettings,
        proc: JobProcess,
        control_fd: int,
        page: HeartbeatPage,
        spawned: Spawned | None = None,
        on_prewarmed: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._proc = proc
        self._page = page
        self._spawned = spawned
        self._on_prewarmed = on_prewarmed
        self._sock = socket.socket(fileno=control_fd)
        self._sock.setblocking(False)
        self._decoder = FrameDecoder()
        self._loop = asyncio.new_event_loop()
        self._start_or_end: asyncio.Future[tuple[m.Start, bytes] | None] = self._loop.create_future()
        self._job_run: JobRun | None = None
        self._resident = Resident(app, proc, self._send_large)
        self._sending = asyncio.Lock()  # keeps the parts of two large messages from being mixed
        self._app_thread = AppThread()
        self._is_entrypoint_sync = is_sync(app.entrypoint_fn)
        self._prewarm_begin = 0.0
        self._prewarmed: object = None
        self._pid = os.getpid()
        self._is_on = False

    def run(self) -> int:
        """Run from prewarm to the end of the clean-up, and return the exit code."""
        asyncio.set_event_loop(self._loop)
        self._dump_fd = stackdump.install()
        self._send(m.Hello(os.getpid(), self._dump_fd, *(self._spawned or ())))
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
        # Not in asyncio.all_tasks(): user code that cancels all tasks must not end the supervision of the job.
        asyncio.tasks._unregister_task(life)
        while not life.done():
            try:
                self._loop.run_until_complete(life)
            except (SystemExit, KeyboardInterrupt) as stop:
                # A task or callback of the user has raised this. asyncio lets the exception out of the loop, but all
                # tasks stay as they are. The exit ends the job. Then the loop runs again, for callbacks and clean-up,
                # even after a second exit: the same code may raise an exit in every turn of the loop.
                if self._job_run is None:
                    return exit_code_of(stop)
                self._job_run.exit_requested(stop)
            except RuntimeError as stop:  # user code has called loop.stop(), which ends the job in the same way
                if self._job_run is None or life.done() or self._loop.is_closed():
                    raise
                self._job_run.exit_requested(stop)
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
        await warm_up(self._proc, self._settings)
        self._send(m.Warm(prewarm_seconds=time.monotonic() - self._prewarm_begin))
        start = await self._start_or_end
        if start is None:
            self._resident.forget()
            await self._clean_up()
            return 0
        return await self._perform(*start)

    def interrupt(self) -> None:
        """React to a SIGINT as ``asyncio.run`` does: the first SIGINT during a job ends this job in order.

        Raises ``KeyboardInterrupt`` at the next SIGINT, and at a SIGINT before the job.
        """
        if self._job_run is None or not self._job_run.interrupt():
            raise KeyboardInterrupt

    def _be_woken_by_signals(self) -> None:
        """Have each signal wake the loop, also if another thread receives it. Only the main thread runs handlers."""
        socket_of_loop = getattr(self._loop, "_csock", None)
        if socket_of_loop is not None:  # a loop of another kind runs handlers at its next heartbeat
            signal.set_wakeup_fd(socket_of_loop.fileno(), warn_on_full_buffer=False)

    def _prewarm_without_loop(self) -> object:
        """Call a sync prewarm before the event loop runs, since prewarm may run a loop of its own.

        Return the result of prewarm. With a sync entrypoint, prewarm runs later, in the entrypoint's thread.
        """
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
        with suppress(Exception):  # a log handler or filter of the app may raise
            _logger.error("prewarm failed", exc_info=error)

    async def _perform(self, start: m.Start, metadata: bytes) -> int:
        job = Job.from_payload(start.job_id, metadata, start.trace_parent)
        job.make_current()
        context = JobContext(job, self._proc)
        self._job_run = JobRun(self._app, context, self._settings, self._app_thread)
        # The acknowledgement goes first. After the acknowledgement, this job is never started on another process.
        self._send(m.Started(start.job_id))
        context.on_own_end = lambda: self._send(m.Ending())
        self._begin_to_beat()
        ended, result = await self._job_run.run()
        context.on_own_end = lambda: None
        if self._is_copy:
            return ended.exit_code
        await self._send_large(m.Ended(ended.how, ended.end_was_asked, ended.error), result)
        self._send(await self._job_run.run_callbacks())
        await self._clean_up()
        return ended.exit_code

    @property
    def _is_copy(self) -> bool:
        """Return whether this process is a copy that the user's code has forked from the child.

        A copy that does not exit comes back to this code. The channel and the heartbeat page of the job are open in the
        copy, but the copy must not send, receive or beat for the job.
        """
        return os.getpid() != self._pid

    # --- control channel -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._is_copy:
            return
        data = self._sock.recv(_CHUNK)
        if not data:
            # The supervisor is dead, or has given up this process. Exit here, if the lifeline has not killed this
            # process.
            os._exit(1)
        for frame in self._decoder.feed(data):
            self._handle(m.decode(frame, _TO_CHILD), frame.body)

    def _handle(self, message: m.Message, body: bytes) -> None:
        if isinstance(message, m.Shutdown):
            if self._job_run is not None:
                self._job_run.shut_down(message)
            return
        if isinstance(message, m.Ask):
            self._begin_to_beat()  # from the first question or news on, the supervisor watches the loop
            self._resident.ask(message, body)
        elif isinstance(message, m.News):
            self._begin_to_beat()
            self._resident.hear(message, body)
        elif isinstance(message, m.Withdraw):
            self._resident.withdraw(message.number)
        else:
            # A second job is an error of the supervisor, and raises InvalidStateError.
            self._start_or_end.set_result((message, body) if isinstance(message, m.Start) else None)

    def _send(self, message: m.Message) -> None:
        """Send a small message at once. If the channel is full, block until the supervisor has read from it."""
        if self._is_copy:
            return
        data = m.encode(message)
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                select.select([], [self._sock], [])

    async def _send_large(self, message: m.Message, body: bytes) -> None:
        async with self._sending:
            await self._loop.sock_sendall(self._sock, m.encode(message, body))

    # --- heartbeat and clean-up ------------------------------------------------------------------

    def _start_heartbeat_thread(self) -> None:
        """Start a thread that counts up in the heartbeat page during the job, as the event loop does.

        If the loop's beats stop and the thread's beats go on, the loop is blocked, but the GIL is free. The thread also
        writes the stacks that the supervisor asks for. It holds the GIL meanwhile, so that no frame changes.
        """
        # Not threading.Thread: its start() waits for the thread to run, which delays the idle state by a millisecond.
        _thread.start_new_thread(self._beat_in_thread, ())

    def _beat_in_thread(self) -> None:
        prctl.set_name("gr:heartbeat")
        interval = self._settings.heartbeat_interval
        asked = 0
        while not self._is_on:
            # Polling is enough, since a stall is found much later. A wake-up would cost the start of the job 0.1 ms.
            time.sleep(4 * interval)
        while True:
            self._page.beat_thread()
            if (now_asked := self._page.stacks_asked()) != asked:
                asked = now_asked
                stackdump.write(self._dump_fd)
            time.sleep(interval)

    def _begin_to_beat(self) -> None:
        if not self._is_on:
            self._is_on = True
            self._beat_in_loop(time.monotonic())

    def _beat_in_loop(self, due: float) -> None:
        if self._is_copy:
            return
        self._page.beat_loop(due)
        interval = self._settings.heartbeat_interval
        self._loop.call_later(interval, self._beat_in_loop, time.monotonic() + interval)

    async def _clean_up(self) -> None:
        """Cancel all remaining tasks, and finish async generators, as ``asyncio.run`` does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.cleanup_timeout / 2)
        await self._loop.shutdown_asyncgens()
        open_objects.log_errors()
