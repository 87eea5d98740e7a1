"""One job, from its entrypoint to its last shutdown callback."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ..app import App
from ..errors import ErrorInfo
from ..job import JobContext, ShutdownCallback
from ..wire import payload
from ..wire.messages import ChildSettings, CleaningUp, Shutdown
from .app_thread import AppThread, note_remedy

__all__ = ["End", "JobRun", "exit_code_of", "stack_of"]

_logger = logging.getLogger("greenroom")

_LONGEST_STACKS = 64 * 1024  # characters, as in a stack dump

_AWAITING = ("cr", "gi", "ag")  # prefixes of attributes: of coroutines, generators, async generators


class End(NamedTuple):
    """End of the entrypoint."""

    how: str
    exit_code: int
    error: ErrorInfo | None = None
    end_was_asked: bool = False
    """True if the supervisor had asked for the end, and the job had not begun to end by itself."""


class JobRun:
    """Run of one job: its entrypoint, which can be asked to end, and its shutdown callbacks."""

    def __init__(self, app: App, context: JobContext, settings: ChildSettings, app_thread: AppThread) -> None:
        assert app.entrypoint_fn is not None  # the loader has checked this
        self._entrypoint: Callable[..., Any] = app.entrypoint_fn
        self._is_async = inspect.iscoroutinefunction(self._entrypoint)
        self._app_thread = app_thread
        self._logs_errors = not app.logs_its_errors
        self._context = context
        self._settings = settings
        context.shutdown_timeout = settings.shutdown_timeout
        self._got_request = False
        self._bounds_own_end = False
        self._was_cut_off = False
        self._exit: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._interrupt: KeyboardInterrupt | None = None

    async def run(self) -> tuple[End, bytes]:
        """Run the entrypoint to its end. Return how it ended, and its result as a payload."""
        task = self._task = asyncio.create_task(self._enter(), name="entrypoint")
        self._context.shutdown_requested.add_done_callback(lambda _: self._end_soon())
        ends: list[asyncio.Future[Any]] = [task, self._exit]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._interrupt is not None:  # the signal came first: Python handles a signal later than a result
            task.cancel()
            return self._exited(self._interrupt), b""
        if not task.done():
            task.cancel()
            return self._exited(self._exit.result()), b""
        return task.result()

    async def _enter(self) -> tuple[End, bytes]:
        end, result = await self._perform()
        # Read now: a request from this same turn of the event loop has come too late.
        return end._replace(end_was_asked=self._end_was_asked), result

    async def _perform(self) -> tuple[End, bytes]:
        try:
            if self._is_async:
                result = await self._entrypoint(self._context)
            else:
                result, error = await self._app_thread.call(self._entrypoint, self._context)
                if error is not None:
                    return self._ended_by(error)  # not raised here: no coroutine can raise a StopIteration
                if inspect.isawaitable(result):
                    result = await result
            return End("completed", 0), payload.encode(result)
        except BaseException as error:
            return self._ended_by(error)

    def _ended_by(self, error: BaseException) -> tuple[End, bytes]:
        if isinstance(error, SystemExit | KeyboardInterrupt):
            return self._exited(error), b""
        if isinstance(error, asyncio.CancelledError) and self._context.shutdown_requested.done():
            return End("cancelled" if self._end_was_asked else "completed", 0), payload.encode(None)
        return self._raised(error), b""

    def _raised(self, error: BaseException) -> End:
        note_remedy(error, "the entrypoint", is_sync=not self._is_async)
        # If an exit has cut the entrypoint off, the exit is reported instead.
        is_cut_off = isinstance(error, asyncio.CancelledError) and self._exit.done()
        if self._logs_errors and not is_cut_off:
            # Log it in this process: error trackers listen to the log of the process that failed.
            with suppress(Exception):  # a log handler or filter of the app may raise
                _logger.error("the entrypoint failed", exc_info=error)
        return End("raised", 1, ErrorInfo.of(error), self._end_was_asked)

    # --- the end ---------------------------------------------------------------------------------

    def shut_down(self, request: Shutdown) -> None:
        """End the job at the supervisor's request.

        A second request comes if the job had begun to end by itself at the first one.
        """
        self._bounds_own_end |= request.bounds_own_end
        if self._context.shutdown_requested.done():
            self._end_soon()
        else:
            self._got_request = True
            self._context.shutdown(request.reason)

    @property
    def _end_was_asked(self) -> bool:
        return self._got_request and not self._context.ends_by_itself

    def exit_requested(self, stop: BaseException) -> None:
        """Note an exit that came out of the loop: a SystemExit, or the loop's stop. Only the first one counts."""
        if not self._exit.done():
            self._exit.set_result(stop)

    def interrupt(self) -> bool:
        """End the job after a SIGINT. Return whether this is the first one.

        A signal handler calls this, between any two instructions of other code.
        """
        is_first, self._interrupt = self._interrupt is None, KeyboardInterrupt()
        self._exit.get_loop().call_soon_threadsafe(self.exit_requested, self._interrupt)
        return is_first

    def _end_soon(self) -> None:
        """Cancel the entrypoint, at once or after the time in which it may return by itself."""
        in_its_thread = not self._is_async and self._context.requested_in_thread
        by_itself = self._context.requested_by is self._task or in_its_thread
        may_return = self._context.is_awaited or by_itself
        grace = self._settings.shutdown_timeout / 2 if may_return else 0.0
        asyncio.get_running_loop().call_later(grace, self._cut_off)

    def _cut_off(self) -> None:
        has_its_own_time = self._context.ends_by_itself and not self._bounds_own_end
        if not has_its_own_time and not self._was_cut_off:
            self._was_cut_off = True
            self._task.cancel()

    def _exited(self, stop: BaseException) -> End:
        if isinstance(stop, Exception):
            return self._raised(stop)
        return End("exited", exit_code_of(stop), ErrorInfo.of(stop), self._end_was_asked)

    # --- shutdown callbacks ----------------------------------------------------------------------

    async def run_callbacks(self) -> CleaningUp:
        """Run all shutdown callbacks at the same time.

        Return a report of the steps that took too long, here and before.
        """
        tasks = [asyncio.create_task(self._call_back(fn)) for fn in self._context.shutdown_callbacks]
        late: set[asyncio.Task[None]] = set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._settings.shutdown_timeout)
        cuts = self._context.cuts
        stacks = [cut.stack for cut in cuts] + (_stacks_of(late) if late else [])
        for task in late:
            task.cancel()
        what = "; ".join(cut.what for cut in cuts)
        return CleaningUp(bool(late), what, "\n".join(stacks)[:_LONGEST_STACKS] if stacks else None)

    async def _call_back(self, fn: ShutdownCallback) -> None:
        try:
            pending = fn(self._reason()) if _takes_argument(fn) else fn()  # type: ignore[call-arg]
            if inspect.isawaitable(pending):
                await pending
        except (Exception, SystemExit, KeyboardInterrupt):
            # The process is about to exit, and other callbacks run. So an exit from one callback must not end them.
            _logger.exception("shutdown callback %r failed", fn)

    def _reason(self) -> str:
        requested = self._context.shutdown_requested
        return requested.result() if requested.done() else ""


def _takes_argument(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn).bind("reason")
    except (TypeError, ValueError):  # it takes no argument; or it is a builtin without a signature
        return False
    return True


def _stacks_of(late: set[asyncio.Task[None]]) -> list[str]:
    """Return the stacks of these tasks, and of all others: a late task may wait for another task."""
    others = asyncio.all_tasks() - late - {asyncio.current_task()}
    return [stack_of(task) for task in (*late, *others)]


def stack_of(task: asyncio.Task[Any]) -> str:
    """Return the stack of a task through all its awaits. :meth:`asyncio.Task.print_stack` shows only the first one."""
    lines = [f"{task!r}, most recent call last:\n"]
    awaited: Any = task.get_coro()
    while awaited is not None:
        kind = next((kind for kind in _AWAITING if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            break  # a future, which does not show the task or event that it waits for
        frame = getattr(awaited, f"{kind}_frame")
        lines += traceback.format_stack(frame) if frame is not None else []
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return "".join(lines)


def exit_code_of(stop: BaseException) -> int:
    """Return the exit code that the interpreter would give to an uncaught SystemExit or KeyboardInterrupt."""
    code = stop.code if isinstance(stop, SystemExit) else 130
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with suppress(Exception):  # __str__ is the user's code, and stderr may be closed
        print(code, file=sys.stderr)
    return 1
