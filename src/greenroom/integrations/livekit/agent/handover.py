"""Functions in the place of ``cli.run_app`` and ``AgentServer.run``, in a script's process: hand over, and wait.

This module imports nothing of LiveKit, since the loader calls it in the middle of LiveKit's own import.
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

from ....errors import AppLoadError
from ....wire.messages import StopWorker
from ....zygote.script.script_handover import current_handover

__all__ = ["imported", "loaded"]

_FRAMEWORK = "livekit.agents"

_before: dict[int, dict[str, Any]] = {}
"""Attributes of each server in the script, from before its main block began, by the server's ``id()``."""
_served: Any = None
_ends: set[asyncio.Future[None]] = set()


def imported(module: ModuleType) -> None:
    """Put the functions in place, after the import of ``module``."""
    if module.__name__.endswith(".cli"):
        module.run_app = run_app  # type: ignore[attr-defined]
        return
    server = module.AgentServer
    server.run, server.drain, server.aclose = _run, _drain, _aclose
    current_handover().watchers.append(_note_servers)


def loaded() -> None:
    """Do nothing: the functions stay in place for as long as the script runs."""


def run_app(server: Any) -> NoReturn:
    """Replace ``cli.run_app``. Like that function, never return, and raise ``SystemExit`` when the worker ends."""
    from .command_line import with_arguments  # imported late: only a script that serves needs it

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    try:
        server = with_arguments(server, sys.argv[1:])
    except AppLoadError as error:
        _hand_over(None, _caller(), str(error))
    _hand_over(server, _caller())
    while True:
        threading.Event().wait()  # a signal ends this


def _run(server: Any, *, devmode: bool = False, unregistered: bool = False) -> Coroutine[Any, Any, None]:
    """Replace ``AgentServer.run``, which returns when the server is closed."""
    complaint = (
        "server.run(unregistered=True) is not supported: a Greenroom worker always registers" if unregistered else ""
    )
    return _serve(server, _caller(), complaint)  # the stack of a task's coroutine would not show the caller


async def _serve(server: Any, place: str, complaint: str) -> None:
    _hand_over(server, place, complaint)
    end = asyncio.get_running_loop().create_future()
    _ends.add(end)
    try:
        await end
    finally:
        _ends.discard(end)


async def _aclose(server: Any) -> None:
    """Replace ``AgentServer.aclose``: stop the worker, which is another process, and have ``run`` return."""
    _stop_worker()
    for end in _ends:
        if not end.done():
            end.set_result(None)


async def _drain(server: Any, timeout: Any = None) -> None:
    """Replace ``AgentServer.drain``: have the worker drain and end. Does not wait for the end."""
    _stop_worker()


def _stop_worker() -> None:
    if _served is not None:
        current_handover().send(StopWorker())


def _hand_over(server: Any, place: str, complaint: str = "") -> None:
    global _served

    def make() -> tuple[dict[str, Any], int]:
        if complaint:
            raise AppLoadError(f"{place}: {complaint}")
        if _served is not None:
            raise AppLoadError(
                f"{place} runs another server, or the same server again: a worker serves one server. Start one worker "
                f"with its own script for each server, or name the server, as in agent.py:server"
            )
        from .handed_server import describe, level_of  # imported late: only a script that serves needs it

        return describe(server, place, _before.get(id(server))), level_of(server)

    current_handover().hand_over(_FRAMEWORK, make)
    _served = server


def _note_servers(namespace: Mapping[str, Any]) -> None:
    from livekit.agents import AgentServer, WorkerOptions  # imported late: the script has imported it by now

    for value in namespace.values():
        if isinstance(value, (AgentServer, WorkerOptions)):
            _before[id(value)] = {name: _kept(one) for name, one in vars(value).items()}


def _kept(value: Any) -> Any:
    """Return a copy of a container and of its values. Code may add to both: event handlers are in a nested dict."""
    if isinstance(value, dict):
        return {key: copy.copy(one) if isinstance(one, (list, dict, set)) else one for key, one in value.items()}
    return copy.copy(value) if isinstance(value, (list, set)) else value


def _caller() -> str:
    """Return the file and the line of the call in the user's code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(("greenroom.", "asyncio")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame is not None else "the script"


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
