"""In the process of a script: ``cli.run_app`` and ``AgentServer.run`` hand over what they are given, and wait.

Imports nothing of LiveKit: it is called in the middle of LiveKit's own import.
"""

from __future__ import annotations

import asyncio
import copy
import signal
import sys
import threading
from collections.abc import Coroutine, Mapping
from types import FrameType, ModuleType
from typing import Any, NoReturn

from ...errors import AppLoadError
from ...wire.messages import StopWorker
from ...zygote.program.desk import the_desk

__all__ = ["imported", "loaded"]

_FRAMEWORK = "livekit.agents"

_before: dict[int, dict[str, Any]] = {}
"""The attributes of what the script could serve before its main block began, by the id of the object."""
_served: Any = None
_ends: set[asyncio.Future[None]] = set()


def imported(module: ModuleType) -> None:
    """Put the functions in place: the module was just imported."""
    if module.__name__.endswith(".cli"):
        module.run_app = run_app  # type: ignore[attr-defined]
        return
    server = module.AgentServer
    server.run, server.drain, server.aclose = _run, _drain, _aclose
    the_desk().watchers.append(_note_servers)


def loaded() -> None:
    """The functions stay for as long as the script runs."""


def run_app(server: Any) -> NoReturn:
    """Stand for ``cli.run_app``: never returns; raises ``SystemExit`` when the worker ends, as that one does."""
    from .command_line import with_arguments

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    try:
        server = with_arguments(server, sys.argv[1:])
    except AppLoadError as error:
        _hand_over(None, _caller(), str(error))
    _hand_over(server, _caller())
    while True:
        threading.Event().wait()  # ended by a signal


def _run(server: Any, *, devmode: bool = False, unregistered: bool = False) -> Coroutine[Any, Any, None]:
    """Stand for ``AgentServer.run``: it returns when the server is closed."""
    complaint = "server.run(unregistered=True) is not for a worker: Greenroom's registers" if unregistered else ""
    return _serve(server, _caller(), complaint)  # a task of its own would not know who has made it


async def _serve(server: Any, place: str, complaint: str) -> None:
    _hand_over(server, place, complaint)
    end = asyncio.get_running_loop().create_future()
    _ends.add(end)
    try:
        await end
    finally:
        _ends.discard(end)


async def _aclose(server: Any) -> None:
    """Stand for ``AgentServer.aclose``: the worker, which is another process, ends in order, and ``run`` returns."""
    _stop_worker()
    for end in _ends:
        if not end.done():
            end.set_result(None)


async def _drain(server: Any, timeout: Any = None) -> None:
    """Stand for ``AgentServer.drain``: the worker drains, and ends. That is not waited for."""
    _stop_worker()


def _stop_worker() -> None:
    if _served is not None:
        the_desk().send(StopWorker())


def _hand_over(server: Any, place: str, complaint: str = "") -> None:
    global _served

    def make() -> tuple[dict[str, Any], int]:
        if complaint:
            raise AppLoadError(f"{place}: {complaint}")
        if _served is not None:
            raise AppLoadError(
                f"{place} runs another server, or the same one again: a worker serves one. Start a worker for each, "
                f"with a script for each, or name the server: agent.py:server"
            )
        from .handed import describe, level_of

        return describe(server, place, _before.get(id(server))), level_of(server)

    the_desk().hand_over(_FRAMEWORK, make)
    _served = server


def _note_servers(namespace: Mapping[str, Any]) -> None:
    from livekit.agents import AgentServer, WorkerOptions

    for value in namespace.values():
        if isinstance(value, (AgentServer, WorkerOptions)):
            _before[id(value)] = {name: _kept(one) for name, one in vars(value).items()}


def _kept(value: Any) -> Any:
    """Return a copy of what may be added to in place."""
    return copy.copy(value) if isinstance(value, (list, dict, set)) else value


def _caller() -> str:
    """Return the file and the line, in the user's code, that serves."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(("greenroom.", "asyncio")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame is not None else "the script"


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
