"""Thread for an app's sync functions, so that the event loop goes on to answer and to beat."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["AppThread", "Outcome", "is_sync", "note_remedy", "outcome_of"]


class Outcome(NamedTuple):
    """Result of a function, or the error that it raised."""

    result: Any = None
    error: BaseException | None = None


def is_sync(fn: Callable[..., Any] | None) -> bool:
    """Return whether a function is not async, also if decorators wrap it."""
    found: Any = inspect.unwrap(fn) if fn is not None else None
    called = getattr(type(found), "__call__", None)  # noqa: B004  # the __call__ of an object may be async
    return not any(map(inspect.iscoroutinefunction, (fn, found, called)))


class AppThread:
    """Thread for all sync functions of the app.

    Prewarm and the entrypoint run in the same thread. So an object that is bound to its thread, such as a SQLite
    connection, works in both.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._context: contextvars.Context

    async def call(self, fn: Callable[..., Any], *arguments: Any) -> Outcome:
        """Call a function in the thread, and return its outcome.

        An error is returned, not raised: no future can carry a StopIteration, and the caller would wait for ever.
        """
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # here, since most apps do not need it

            self._executor = ThreadPoolExecutor(1, thread_name_prefix="app")
            self._context = contextvars.copy_context()  # one for all calls: prewarm can set variables in it
        run = self._context.run
        return await asyncio.get_running_loop().run_in_executor(self._executor, run, outcome_of, fn, arguments, {})


def outcome_of(fn: Callable[..., Any], arguments: Iterable[Any], named: Mapping[str, Any]) -> Outcome:
    """Call a function, and return its result, or any error that it raises."""
    try:
        return Outcome(fn(*arguments, **named))
    except BaseException as error:
        return Outcome(error=error)


def note_remedy(error: BaseException, function: str, *, is_sync: bool) -> None:
    """Add a remedy to an error that code raises because it needs an event loop, the main thread, or a terminal."""
    if is_sync and type(error) is RuntimeError and str(error) == "no running event loop":
        error.add_note(f"No event loop runs around {function}, since it is not async. Write it as `async def`.")
    if is_sync and type(error) is ValueError and "only works in main thread" in str(error):
        error.add_note(f"{function.capitalize()} runs in a thread, since it is not async. Write it as `async def`.")
    has_no_input = type(error) is EOFError and str(error) == "EOF when reading a line"
    if has_no_input or type(error).__module__ == "bdb":
        error.add_note(
            "No process of Greenroom has a terminal: input() and breakpoint() read nothing. Attach a debugger by a "
            "socket: PYTHONBREAKPOINT=remote_pdb.set_trace in the environment of the worker, or debugpy."
        )
