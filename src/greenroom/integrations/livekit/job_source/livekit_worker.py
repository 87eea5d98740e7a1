"""Worker of LiveKit servers: its connections, its jobs and its load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from ....errors import GreenroomError, PoolClosed
from ....log_fields import log_fields
from ....sources import Host, Listener
from ..job_order import Order
from ..options import LiveKitOptions
from .failover import FailoverWatch
from .gate import LoadGate
from .lanes import Lanes
from .livekit_connection import Connection
from .livekit_jobs import LiveKitJobs
from .livekit_protocol import Assigned, Offered, ServerMessage, Terminated
from .load_report import NOTHING, Load, load_of
from .registrations import Registration, Server
from .reporter import Reporter
from .restart import Restarter
from .rooms import Rooms
from .worker_news import WorkerNews

__all__ = ["LiveKitWorker"]

_logger = logging.getLogger("greenroom.livekit")

LAST_WORDS = 5.0
"""Seconds for the report of the last ends."""


class LiveKitWorker(Listener):
    """Connections to LiveKit servers, and the jobs from them."""

    def __init__(
        self,
        host: Host,
        options: LiveKitOptions,
        registrations: Callable[[], list[Registration]],
    ) -> None:
        self._find_registrations = registrations
        self._registrations = wanted = registrations()
        self._host = host
        self._is_paused = False
        self._session = aiohttp.ClientSession(trust_env=True)
        self._connections = [Connection(registration, self._session, self) for registration in wanted]
        self._reporter = Reporter(self.load, self._connections)
        rooms = {server: Rooms(server, self._session) for server in dict.fromkeys(each.server for each in wanted)}
        self._news = WorkerNews(host.resident, self._orders)
        self._restarter = Restarter(options, host, rooms, self._news)
        self._offer_timeout = options.livekit_offer_timeout
        self._lanes = Lanes()
        self._gate = LoadGate(host, self._news, self._reserved, self._reporter.notify)
        self._sessions = LiveKitJobs(
            host, self._offer_timeout, self._lanes, self._restarter.ended, self._jobs_changed, self._gate
        )
        self._watches = self._failover_watches(options, rooms)
        self._tasks: list[asyncio.Task[None]] = []
        self._reported_state: tuple[str, str] | None = None
        self._unsubscribe = host.listen(self)

    async def open(self) -> None:
        """Start the tasks, which never end by themselves. Get the app's own load before the first connection."""
        self._news.started()
        self._gate.reset()
        await self._gate.meter.refresh()
        self._spawn(self._gate.meter.run(), "greenroom-livekit-load-fnc")
        self._spawn(self._reporter.run(), "greenroom-livekit-load")
        for connection in self._connections:
            self._spawn(connection.run(), f"greenroom-livekit-{connection.registration}")
        for watch in self._watches:
            self._spawn(watch.run(), "greenroom-livekit-failover")

    def pause(self) -> None:
        self._is_paused = True
        self._restarter.pause()
        self._gate.meter.stop()
        self._reporter.report_all()

    async def close(self) -> None:
        """Report the last ends, and then close the connections in order."""
        self._is_paused = True
        self._gate.meter.stop()
        await self._sessions.settled(LAST_WORDS)
        await self._restarter.settled(LAST_WORDS)
        await asyncio.gather(*(connection.flush() for connection in self._connections))
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for watch in self._watches:
            await watch.close()
        await self._session.close()

    # --- status ----------------------------------------------------------------------------------

    def load(self) -> Load:
        """Return the current load."""
        try:
            stats = self._host.stats()
        except PoolClosed:
            return NOTHING
        if self._is_paused:
            return Load(False, 1.0, stats.jobs, "draining")
        problem = self._host.problem()
        reason = None if problem is None else problem.reason
        return load_of(reason, stats, self._host.further_jobs(), self._offer_timeout, self._gate.load())

    def status(self) -> dict[str, Any]:
        state, detail = self._state()
        load, last = self.load(), self._sessions.last_answer_seconds
        return {
            "state": state,
            "detail": detail,
            "available": load.available,
            "load": load.value,
            "problem": load.problem,
            "load_fnc": self._gate.status(),
            "jobs": len(self._sessions.live()),
            "restarted_jobs": len(self._restarter.runs),
            "answers": self._sessions.answers,
            "last_answer_ms": None if last is None else round(last * 1000, 3),
            "connections": [_connection_status(connection) for connection in self._connections],
        }

    def _state(self) -> tuple[str, str]:
        missing = [connection for connection in self._connections if connection.state != "registered"]
        if not missing:
            return "connected", ""
        detail = "; ".join(f"{connection.registration}: {connection.detail}" for connection in missing)
        return ("disconnected" if len(missing) == len(self._connections) else "degraded"), detail

    # --- events of the connections ---------------------------------------------------------------

    def registered(self, connection: Connection) -> None:
        self._news.registered(connection)
        self._sessions.registered(connection)
        self._reporter.report(connection)

    def received(self, connection: Connection, message: ServerMessage) -> None:
        match message:
            case Offered():
                self._sessions.offered(connection, message)
            case Assigned():
                self._sessions.assigned(connection, message)
            case Terminated():
                self._sessions.terminated(message.job_id)
            case _:
                extra = log_fields("livekit_message_refused", kind="registration", **connection.registration.ids)
                _logger.warning("%s: the server registered the worker again", connection.registration, extra=extra)

    def lost(self, connection: Connection) -> None:
        self._news.lost(connection)
        self._sessions.lost(connection)

    def state_changed(self, connection: Connection) -> None:
        if self._reported_state != (state := self._state()):
            self._reported_state = state
            self._host.report_state(*state)

    # --- events of the host ----------------------------------------------------------------------

    def changed(self) -> None:
        self._reporter.notify()

    def job_ended(self, job_id: str) -> None:
        self._news.ended(job_id)

    def reloaded(self) -> None:
        self._news.reset()
        if not self._is_paused:
            self._gate.reset()
        self._compare_registrations()

    def _reserved(self) -> int:
        return self._sessions.reserved()

    def _orders(self) -> dict[str, Order]:
        return self._sessions.launched() | self._restarter.launched()

    def _compare_registrations(self) -> None:
        try:
            is_same = self._find_registrations() == self._registrations
        except GreenroomError as error:
            extra = log_fields("restart_needed", cause=str(error))
            _logger.warning("%s; the worker stays registered as it was", error, extra=extra)
            return
        if not is_same:
            text = "the reloaded app has another agent name, type or permissions: restart the worker to register it"
            _logger.warning(text, extra=log_fields("restart_needed", cause="registration"))

    # --- helpers ---------------------------------------------------------------------------------

    def _jobs_changed(self) -> None:
        self._reporter.notify()
        for watch in self._watches:
            watch.notify()

    def _failover_watches(self, options: LiveKitOptions, rooms: dict[Server, Rooms]) -> list[FailoverWatch]:
        if options.livekit_restart != "on_worker_loss":
            return []
        return [FailoverWatch(options, server, api, self._sessions, self._restarter) for server, api in rooms.items()]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(self._host.spawn(work, name))


def _connection_status(connection: Connection) -> dict[str, Any]:
    registration = connection.registration
    return {
        "url": registration.server.url,
        "agent_name": registration.agent_name,
        "type": registration.kind,
        "state": connection.state,
        "detail": connection.detail,
        "worker_id": connection.worker_id,
        "registrations": connection.registrations,
    }
