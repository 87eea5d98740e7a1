"""Wrappers of the user's functions that note facts LiveKit's life cycle hides: errors, and functions cut off."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from ....zygote.job_run import stack_of

__all__ = ["EntrypointCancelled", "SessionEnd", "Watch"]

_logger = logging.getLogger("greenroom.livekit")


class EntrypointCancelled(Exception):
    """Error of a job whose own code cancelled the entrypoint, though nothing had requested the job's end."""


class Watch:
    """Wrapper of an entrypoint. Keeps the entrypoint's error, and can cancel it without LiveKit's notice."""

    def __init__(self, entrypoint: Callable[..., Any], is_ending: Callable[[], bool]) -> None:
        self.error: Exception | None = None
        self.when_entered: Callable[[], object] = lambda: None
        self.when_returned: Callable[[], object] = lambda: None
        self._entrypoint = entrypoint
        self._is_ending = is_ending
        self._task: asyncio.Task[Any] | None = None
        self._was_cut_off = False
        functools.update_wrapper(self, entrypoint)

    async def __call__(self, context: Any) -> None:
        self._task = asyncio.current_task()
        # The call runs in this context, which holds the job's traces, and after the entrypoint's first turn.
        asyncio.get_running_loop().call_soon(self.when_entered)
        try:
            await self._entrypoint(context)
            self.when_returned()
        except asyncio.CancelledError as error:
            self._cancelled(error)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._task = None

    def cut_off(self) -> None:
        """Cancel the entrypoint, if it still runs. LiveKit sees a return.

        A cancellation would skip the rest of LiveKit's sequence, which closes the session and calls the callbacks.
        """
        if self._task is not None and not self._was_cut_off:
            self._was_cut_off = True
            self._task.cancel()

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        if self._was_cut_off:
            return
        if self._is_ending():
            raise error
        # LiveKit would wait for ever for the end of a job whose entrypoint was cancelled.
        self.error = EntrypointCancelled("the entrypoint was cancelled, though nothing had requested the job's end")
        raise self.error from error


class SessionEnd:
    """Wrapper of an ``on_session_end``. Can cancel it without LiveKit's notice, so that the callbacks follow."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.when_cut: Callable[[str, str], object] = lambda what, stack: None
        """Function to call after a cut, with a sentence about it and the stack at that moment."""
        self._function = function
        self._task: asyncio.Task[Any] | None = None
        self._begun_at = 0.0
        functools.update_wrapper(self, function)

    async def __call__(self, context: Any) -> None:
        self._begun_at = asyncio.get_running_loop().time()
        # A task of its own is needed: from Python 3.12 on, LiveKit's limit runs the function in the job's main task.
        task = self._task = asyncio.create_task(self._call(context), name="on_session_end")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self.cut_off()  # LiveKit's own limit has passed
            await asyncio.wait({task})
            raise
        if not task.cancelled():
            task.result()

    async def _call(self, context: Any) -> None:
        await self._function(context)

    def cut_off(self) -> None:
        """Cancel the function, if it still runs."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        what = f"on_session_end was cut off after {asyncio.get_running_loop().time() - self._begun_at:.1f} s"
        stack = stack_of(task)
        _logger.error("%s; it was in %s", what, stack)
        self.when_cut(what, stack)
        task.cancel()
