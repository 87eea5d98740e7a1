"""View of LiveKit's worker in the resident process: the app's own server, which looks as if its worker ran there.

``load_fnc`` gets the server as its argument. The server emits ``worker_started`` and ``worker_registered``.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from livekit.agents import AgentServer
from livekit.agents.job import RunningJobInfo
from livekit.protocol import agent

from ..job_order import STARTED, Order
from .load_function import LoadFunction
from .running_job import from_order

__all__ = ["EVENTS", "WorkerView", "handlers_of"]

EVENTS = ("worker_started", "worker_registered")


def handlers_of(server: AgentServer) -> list[Any]:
    """Return the app's handlers of the worker's events."""
    events = getattr(server, "_events", {})
    return [handler for event in EVENTS for handler in events.get(event, ())]


class WorkerView:
    """App's server, with the jobs and the id that the worker has. ``load_fnc`` is the app's own, or ``None``."""

    def __init__(self, server: AgentServer, load_fnc: Any, *, is_dev: bool) -> None:
        self._server = server
        self._load = None if load_fnc is None else LoadFunction(load_fnc, server)
        self._is_dev = is_dev
        self._jobs: dict[str, RunningJobInfo] = {}
        self._is_set_up = False

    # --- news ------------------------------------------------------------------------------------

    def note_job(self, job_id: str, order: bytes | None) -> None:
        """Note the launch of a job, or its end if ``order`` is ``None``."""
        self._set_up()
        if order is None:
            self._jobs.pop(job_id, None)
        else:
            self._jobs[job_id] = from_order(Order.decode(order))

    def note_worker(self, key: str, response: bytes | None) -> None:
        """Note the worker's start, or its registration by a server, and call the handlers of that event."""
        self._set_up()
        server: Any = self._server
        if response is None:
            return  # the connection is lost: LiveKit has no event for that
        if key == STARTED:
            server.emit("worker_started")
            return
        registered = agent.RegisterWorkerResponse.FromString(response)
        server._id = registered.worker_id
        server.emit("worker_registered", registered.worker_id, registered.server_info)

    # --- the load --------------------------------------------------------------------------------

    async def load(self, data: dict[str, Any]) -> float:
        """Return the load from ``load_fnc``. Raises :class:`LoadError` if it gives none."""
        assert self._load is not None
        self._set_up()
        server: Any = self._server
        server._reserved_slots = data.get("reserved", 0)
        server._worker_load = value = await self._load.evaluate()
        return value

    # --- the server ------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Set the attributes that the server's ``run`` would set, since a function of the app may read them."""
        if self._is_set_up:
            return
        self._is_set_up = True
        server: Any = self._server
        server._proc_pool = _Processes(self._jobs)
        server._loop = asyncio.get_running_loop()
        server._devmode = self._is_dev
        server._closed = server._connecting = False  # as in a worker that runs: the app cannot change options any more
        server._worker_load = 0.0
        server._reserved_slots = 0


class _Processes:
    """Stand-in for LiveKit's pool of processes, with the parts that show the running jobs."""

    def __init__(self, jobs: dict[str, RunningJobInfo]) -> None:
        self._jobs = jobs

    @property
    def processes(self) -> list[Any]:
        """Copy of the list, since ``load_fnc`` runs in a thread while jobs start and end."""
        return [SimpleNamespace(running_job=info) for info in list(self._jobs.values())]

    def get_by_job_id(self, job_id: str) -> Any:
        info = self._jobs.get(job_id)
        return None if info is None else SimpleNamespace(running_job=info)
