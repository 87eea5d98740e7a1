"""What LiveKit's life cycle does not tell: how the user's entrypoint really ended."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["EntrypointCancelled", "Watch"]


class EntrypointCancelled(Exception):
    """Something within the job cancelled its entrypoint, though the job was not to end."""


class Watch:
    """Wraps an entrypoint, keeps what it raises, and can end it without LiveKit seeing a cancellation."""

    def __init__(self, entrypoint: Callable[..., Any], is_ending: Callable[[], bool]) -> None:
        self.error: Exception | None = None
        self.when_entered: Callable[[], object] = lambda: None
        self._entrypoint = entrypoint
        self._is_ending = is_ending
        self._task: asyncio.Task[Any] | None = None
        self._was_cut_off = False
        functools.update_wrapper(self, entrypoint)

    async def __call__(self, context: Any) -> None:
        self._task = asyncio.current_task()
        # In this context, in which the traces of the job are; and not before the entrypoint has had its turn.
        asyncio.get_running_loop().call_soon(self.when_entered)
        try:
            await self._entrypoint(context)
        except asyncio.CancelledError as error:
            self._cancelled(error)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._task = None

    def cut_off(self) -> None:
        """Cancel the entrypoint, if it still runs. To LiveKit it returns: a cancellation would skip the rest of its
        sequence, in which the session is closed and callbacks are called."""
        if self._task is not None and not self._was_cut_off:
            self._was_cut_off = True
            self._task.cancel()

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        if self._was_cut_off:
            return
        if self._is_ending():
            raise error
        # LiveKit would wait for ever for a job whose entrypoint is gone.
        self.error = EntrypointCancelled("the entrypoint was cancelled, though nothing had asked the job to end")
        raise self.error from error
