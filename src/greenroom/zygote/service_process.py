"""Process of an app's service: loads the service, then answers the calls of all jobs.

This code runs in a fork of the zygote, one for each service. :mod:`.service_client` runs in the children that call.

A caller opens one connection for each call. A caller is in one of these places:

- entering: the connection is accepted, and is being set up.
- standing: all seats are taken, so the caller's data stays in the socket.
- seated: the caller's data is read. There are ``concurrency + queue`` seats.
- waiting: the call is complete, and ``concurrency`` calls run already. The caller keeps its seat.
- running: the function runs. The caller keeps its seat until the caller has the answer.

A caller that hangs up withdraws its call. Then the call is not begun, or is cancelled if its function is async. A sync
function cannot be cancelled. If a function still runs after its time, this process ends, and the zygote starts another
process for the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import inspect
import logging
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..app_service import AppService
from ..errors import ErrorInfo
from ..system.peer import is_own_user
from ..wire.call_data import pack, unpack
from ..wire.frames import FrameError
from .app_thread import Outcome, is_sync, outcome_of
from .job_run import stack_of
from .service_line import ANSWER, CALL, LISTED, NOT_LOADED, RAISED, TAKEN, Line
from .services import COULD_NOT_LOAD

__all__ = ["serve"]

HANG_GRACE = 1.0
"""Seconds after a call's time limit until this process ends, if the function still runs.

If the event loop is blocked, or the function holds the GIL, the process ends after twice as many seconds.
"""
_SLACK = 0.5
"""Seconds after a call's deadline until this process closes the connection. So the caller is the first to give up."""
_STANDING = 256
"""Number of callers without a seat that are accepted. Such a caller is notified (``LISTED``).

Further callers wait in the kernel's queue of the listening socket, without a notice.
"""
_ACCEPT_AGAIN = 0.5
"""Seconds until the next attempt after a connection could not be accepted, for example for lack of file descriptors."""
_LONGEST_ERROR = 16_000
"""Largest number of characters of an error message in an answer."""

_STDERR = 2
"""Fd of stderr, since the app may have replaced ``sys.stderr``."""

_logger = logging.getLogger("greenroom")


def serve(service: AppService, listener: socket.socket, pause: float) -> int:
    """Load the service, and serve calls for ever.

    If the loading fails, answer all calls with the error for ``pause`` seconds, and then return the exit code.
    """
    try:
        function = _function(service.load())
    except (Exception, SystemExit) as error:
        _logger.error(
            "the service %s could not be loaded. It is loaded again in %g s", service.name, pause, exc_info=error
        )
        _Calls(service, failure=ErrorInfo.of(error, limit=_LONGEST_ERROR)).run(listener, pause)
        return COULD_NOT_LOAD
    _Calls(service, function).run(listener)
    return 0


def _function(loaded: Any) -> Callable[..., Any]:
    if not callable(loaded):
        raise TypeError(f"it returned a {type(loaded).__name__} instead of the function that answers calls")
    return loaded  # type: ignore[no-any-return]


class _Call(NamedTuple):
    """Call of a caller, as received. ``caller`` names the calling process or job, for the log."""

    caller: str
    began: float
    deadline: float
    """``began`` and ``deadline`` are in seconds of ``time.monotonic()``, which is the same in all processes."""
    sizes: list[int]
    body: memoryview

    @classmethod
    def of(cls, header: dict[str, Any], body: memoryview) -> _Call:
        match header:
            case {"caller": str(caller), "began": float(began), "deadline": float(deadline), "sizes": [*sizes]}:
                if math.isfinite(began) and math.isfinite(deadline) and all(type(size) is int for size in sizes):
                    return cls(caller, began, deadline, sizes, body)
        raise FrameError("a call with an invalid header")


class _Caller(Line):
    """Connection of a caller, and the call that was received on this connection."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__()
        self._calls = calls
        self.call: _Call | None = None
        self.run: _Run | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._is_listed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._calls.came(self)

    def on_frame(self, kind: int, header: dict[str, Any], body: memoryview) -> None:
        if kind != CALL or self.call is not None:
            raise FrameError(f"a frame of kind {kind}")
        self.call = _Call.of(header, body)
        self._calls.asked(self, self.call)

    def on_lost(self) -> None:
        self._calls.left(self)

    def let_wait(self) -> None:
        if not self._is_listed:
            self._is_listed = True
            self.send(LISTED)


class _Run:
    """Call that runs, or has run."""

    def __init__(self, call: _Call, until: float) -> None:
        self.call = call
        self.until = until
        """End of the call's time, on the monotonic clock."""
        self.since = time.monotonic()
        self.thread: int | None = None
        """Id of the thread in which the function runs now; ``None`` if it does not run in a thread."""
        self.is_in_thread = False
        self.is_withdrawn = False
        self.task: asyncio.Task[None]
        self.timer: asyncio.TimerHandle

    def withdraw(self) -> None:
        self.is_withdrawn = True
        if not self.is_in_thread:  # a function in a thread cannot be cancelled, and counts as running until it returns
            self.task.cancel()

    def stack(self) -> str:
        frame = sys._current_frames().get(self.thread) if self.thread is not None else None
        return "".join(traceback.format_stack(frame)) if frame is not None else stack_of(self.task)


class _Calls:
    """Callers of the service, their order, and the calls that run.

    All methods except :meth:`_in_thread` run in the event loop of this process.

    A :class:`_Caller` calls :meth:`came`, then :meth:`asked` when its call is complete, and :meth:`left` in the end.
    """

    def __init__(
        self, service: AppService, function: Callable[..., Any] | None = None, failure: ErrorInfo | None = None
    ) -> None:
        self._service = service
        self._function = function
        self._failure = failure
        self._is_sync = is_sync(function)
        self._standing: deque[_Caller] = deque()
        self._seated: set[_Caller] = set()
        self._waiting: deque[_Caller] = deque()
        self._running: set[_Run] = set()
        self._seats = service.concurrency + service.queue
        self._entering: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._listener: socket.socket
        self._is_open = False

    def run(self, listener: socket.socket, seconds: float | None = None) -> None:
        from concurrent.futures import ThreadPoolExecutor  # imported late: zygote and sessions do not need it

        self._listener = listener
        self._executor = ThreadPoolExecutor(self._service.concurrency, thread_name_prefix=self._service.name)
        asyncio.set_event_loop(self._loop)
        self._open()
        if seconds is not None:
            self._loop.call_later(seconds, self._loop.stop)
        self._loop.run_forever()

    # --- accepting -------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._loop.add_reader(self._listener, self._accept)

    def _shut(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        if len(self._seated) + len(self._standing) + len(self._entering) >= self._seats + _STANDING:
            self._shut()  # until a caller leaves
            return
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _logger.error("the service %s cannot accept a call: %s", self._service.name, error)
            self._shut()
            self._loop.call_later(_ACCEPT_AGAIN, self._open)
            return
        if not is_own_user(sock):
            sock.close()
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: _Caller(self), sock))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    def came(self, caller: _Caller) -> None:
        if len(self._seated) < self._seats:
            self._seated.add(caller)
        else:
            caller.pause()  # the caller's data stays in the socket
            self._standing.append(caller)
            caller.let_wait()

    def left(self, caller: _Caller) -> None:
        """Forget a caller that has its answer, or that has withdrawn its call."""
        self._seated.discard(caller)
        for line in (self._standing, self._waiting):
            with contextlib.suppress(ValueError):  # the caller is not in this line
                line.remove(caller)
        if caller.timer is not None:
            caller.timer.cancel()  # the timer would keep the caller and its data in memory
        if caller.run is not None:
            caller.run.withdraw()
        while self._standing and len(self._seated) < self._seats:
            following = self._standing.popleft()
            self._seated.add(following)
            following.resume()
        self._open()

    # --- calls -----------------------------------------------------------------------------------

    def asked(self, caller: _Caller, call: _Call) -> None:
        caller.timer = self._loop.call_at(call.deadline + _SLACK, caller.drop)
        self._waiting.append(caller)
        self._start_next()
        if caller in self._waiting:
            caller.let_wait()

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < self._service.concurrency:
            caller = self._waiting.popleft()
            call = caller.call
            assert call is not None
            if caller.is_hung_up or call.deadline <= time.monotonic():
                caller.drop()
            elif self._failure is not None:
                _refuse(caller, NOT_LOADED, self._failure)
            else:
                self._start(caller, call)

    def _start(self, caller: _Caller, call: _Call) -> None:
        # At least the service's own timeout: a caller with a short deadline must not end this process, which all use.
        limit = max(self._service.timeout, call.deadline - call.began)
        run = caller.run = _Run(call, time.monotonic() + limit)
        caller.send(TAKEN)  # before the function runs: from this message on, the caller does not repeat the call
        self._running.add(run)
        run.timer = self._loop.call_later(limit + HANG_GRACE, self._end_process, run)
        self._watch_from_outside()
        run.task = self._loop.create_task(self._perform(caller, run), name=f"call of {call.caller}")

    async def _perform(self, caller: _Caller, run: _Run) -> None:
        try:
            outcome, parts = await self._outcome(run)
        finally:
            run.timer.cancel()
            self._running.discard(run)
            self._watch_from_outside()
            caller.run = None
            self._loop.call_soon(self._start_next)
        if outcome.error is not None:
            error = outcome.error
            _logger.error("the service %s failed on a call of %s", self._service.name, run.call.caller, exc_info=error)
            _refuse(caller, RAISED, ErrorInfo.of(error, limit=_LONGEST_ERROR))
        else:
            caller.send(ANSWER, parts=parts)
            caller.close()

    async def _outcome(self, run: _Run) -> tuple[Outcome, list[bytes]]:
        try:
            arguments, named = unpack(run.call.sizes, run.call.body)
            outcome = await self._call(run, arguments, named)
            return outcome, [] if outcome.error is not None else pack(outcome.result)
        except Exception as error:  # also errors of pack(), by a class of the app or by a thread that changes the data
            return Outcome(error=error), []

    async def _call(self, run: _Run, arguments: list[Any], named: dict[str, Any]) -> Outcome:
        assert self._function is not None
        if self._is_sync:
            run.is_in_thread = True
            try:
                outcome = await self._loop.run_in_executor(self._executor, self._in_thread, run, arguments, named)
            finally:
                run.is_in_thread = False
        else:
            outcome = outcome_of(self._function, arguments, named)
        if outcome.error is not None or run.is_withdrawn or not inspect.isawaitable(outcome.result):
            return outcome
        try:
            return Outcome(await outcome.result)
        except asyncio.CancelledError as error:
            if run.task.cancelling():
                raise
            return Outcome(error=error)  # the function has awaited something that was cancelled
        except BaseException as error:  # SystemExit too: one call must not end the process that all callers use
            return Outcome(error=error)

    def _in_thread(self, run: _Run, arguments: list[Any], named: dict[str, Any]) -> Outcome:
        assert self._function is not None
        run.thread = threading.get_ident()
        try:
            return outcome_of(self._function, arguments, named)
        finally:
            run.thread = None

    # --- hangs -----------------------------------------------------------------------------------

    def _watch_from_outside(self) -> None:
        """Have faulthandler end this process if the event loop cannot end it, because the loop is blocked.

        The thread of faulthandler is a C thread, and needs no GIL.
        """
        if not self._running:
            faulthandler.cancel_dump_traceback_later()
            return
        until = min(run.until for run in self._running) + 2 * HANG_GRACE
        seconds = min(max(until - time.monotonic(), 0.001), threading.TIMEOUT_MAX)  # a larger value is an error
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)

    def _end_process(self, run: _Run) -> None:
        _logger.error(
            "the service %s hangs in a call of %s for %.1f s: its process is replaced. Its stack, most recent call "
            "last:\n%s",
            self._service.name,
            run.call.caller,
            time.monotonic() - run.since,
            run.stack(),
        )
        sys.stderr.flush()
        os._exit(1)


def _refuse(caller: _Caller, kind: int, error: ErrorInfo) -> None:
    caller.send(kind, {"type": error.type, "message": error.message})
    caller.close()
