"""Objects of an app that a fork makes useless or dangerous, and that no file descriptor shows.

- An event loop that was made while the app was loaded: no process runs it.
- A log handler that rotates its file: each process would rename the file.
- A lock of ``multiprocessing``: all processes share it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

from .app_modules import modules_of_app

__all__ = ["LOOP_WARNING", "fds_of_loops", "handlers", "warnings"]

LOOP_WARNING = (
    "an event loop was made while the app was loaded, and no process runs it: its tasks and callbacks never run. Use "
    "asyncio.get_running_loop() in prewarm or the entrypoint instead"
)


def fds_of_loops() -> set[int]:
    """Return the fds of asyncio event loops that the app has made and not closed."""
    found: set[int] = set()
    for loop in _loops():
        for name in ("_selector", "_csock", "_ssock"):
            with suppress(AttributeError, ValueError, OSError):  # a loop of another kind, or closed
                found.add(getattr(loop, name).fileno())
    return found


def _loops() -> Iterator[Any]:
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    yield getattr(getattr(policy, "_local", None), "_loop", None)
    for module in modules_of_app():
        # By type(): an object's __class__ may be code.
        yield from (each for each in list(vars(module).values()) if issubclass(type(each), asyncio.BaseEventLoop))


def renew() -> None:
    """Replace, in a child, the objects that it must not share."""
    tqdm_locks: Any = _tqdm_locks()
    if tqdm_locks is not None:
        tqdm_locks.renew()


def warnings() -> list[str]:
    """Return a warning for each kind of shared lock, and for each log handler that rotates its file."""
    return _of_locks() + [
        f"the log handler of {handler.baseFilename} renames its file in each process, while others write to it: lines "
        f"are lost. Use logrotate and a logging.handlers.WatchedFileHandler, or log to stderr"
        for handler in handlers()
        if _rotates(handler)
    ]


def _of_locks() -> list[str]:
    synchronize: Any = sys.modules.get("multiprocessing.synchronize")
    if synchronize is None:
        return []
    # multiprocessing keeps this registry, to renew its locks in the processes that it forks.
    registry = list(synchronize.util._afterfork_registry.values())
    tqdm_locks: Any = _tqdm_locks()
    renewed = tqdm_locks.lock_of_all() if tqdm_locks is not None else None
    if not any(issubclass(type(each), synchronize.SemLock) and each is not renewed for each in registry):
        return []
    return [
        "a lock of multiprocessing (Lock, Value, Queue) was made while the app was loaded, and all processes share it: "
        "after a job is killed while it holds the lock, no other job gets it. If this can happen, use fcntl.flock"
    ]


def _tqdm_locks() -> ModuleType | None:
    """Return the module :mod:`greenroom.zygote.tqdm_locks`, if the app has imported tqdm."""
    return sys.modules.get(f"{__package__}.tqdm_locks")


def _rotates(handler: Any) -> bool:
    module: Any = sys.modules.get("logging.handlers")
    roll_over = getattr(type(handler), "doRollover", None)  # the method of a subclass may respect other processes
    if module is None or roll_over is None:
        return False
    if roll_over is module.RotatingFileHandler.doRollover:
        return bool(handler.maxBytes)
    return roll_over is module.TimedRotatingFileHandler.doRollover


def handlers() -> Iterator[Any]:
    """Yield all handlers of ``logging`` that exist."""
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        if (handler := reference()) is not None:
            yield handler
