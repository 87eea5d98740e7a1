"""All of a worker's dealings with LiveKit servers: its connections, its jobs, its load."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from ....errors import GreenroomError, PoolClosed
from ....pool import ProcessPool
from ....pool.events import Event, Reloaded, SourceChanged
from ....settings.livekit import LiveKitOptions
from ...admission import Admission
from .config import Registration, Server
from .connection import Connection
from .load import NOTHING, Load, load_of
from .loss import LossWatch
from .protocol import Assigned, Offered, ServerMessage, Terminated
from .reporter import Reporter
from .restart import Restarter
from .rooms import Rooms
from .sessions import Sessions
from .starts import StartQueue

__all__ = ["Office"]

_logger = logging.getLogger("greenroom.livekit")

LAST_WORDS = 5.0
"""Seconds for telling the last ends."""


class Office:
    """Listens to its connections, and passes on what they say."""

    def __init__(
        self,
        pool: ProcessPool,
        admission: Admission,
        options: LiveKitOptions,
        registrations: Callable[[], list[Registration]],
    ) -> None:
        self._find_registrations = registrations
        self._registrations = wanted = registrations()
        self._pool = pool
        self._admission = admission
        self._is_paused = False
        self._session = aiohttp.ClientSession(trust_env=True)
        self._connections = [Connection(registration, self._session, self) for registration in wanted]
        self._reporter = Reporter(self.load, self._connections)
        rooms = {server: Rooms(server, self._session) for server in dict.fromkeys(each.server for each in wanted)}
        self._restarter = Restarter(options, admission, rooms)
        self._offer_timeout = options.livekit_offer_timeout
        self._starts = StartQueue(pool.stats, options.livekit_start_delay)
        self._sessions = Sessions(
            pool, admission, self._offer_timeout, self._starts, self._restarter.ended, self._jobs_changed
        )
        self._watches = self._loss_watches(options, rooms)
        self._tasks: list[asyncio.Task[None]] = []
        self._told_state: tuple[str, str] | None = None
        self._unsubscribe = pool.subscribe(self._on_event)

    def open(self) -> None:
        """Begin; none of it ends by itself."""
        self._spawn(self._reporter.run(), "greenroom-livekit-load")
        for connection in self._connections:
            self._spawn(connection.run(), f"greenroom-livekit-{connection.registration}")
        for watch in self._watches:
            self._spawn(watch.run(), "greenroom-livekit-loss")

    def pause(self) -> None:
        self._is_paused = True
        self._restarter.pause()
        self._reporter.tell_all()

    async def close(self) -> None:
        """The last ends are told, then the connections are closed in order."""
        self._is_paused = True
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

    # --- what it looks like ----------------------------------------------------------------------

    def load(self) -> Load:
        """This moment's."""
        try:
            stats = self._pool.stats()
        except PoolClosed:
            return NOTHING
        if self._is_paused:
            return Load(False, 1.0, stats.jobs, "draining")
        problem = self._admission.problem()
        reason = None if problem is None else problem.reason
        return load_of(reason, stats, self._pool.options.max_jobs, self._offer_timeout)

    def status(self) -> dict[str, Any]:
        state, detail = self._state()
        load, last = self.load(), self._sessions.last_answer_seconds
        return {
            "state": state,
            "detail": detail,
            "available": load.available,
            "load": load.value,
            "problem": load.problem,
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

    # --- what the connections say ----------------------------------------------------------------

    def registered(self, connection: Connection) -> None:
        self._sessions.registered(connection)
        self._reporter.tell(connection)

    def received(self, connection: Connection, message: ServerMessage) -> None:
        match message:
            case Offered():
                self._sessions.offered(connection, message)
            case Assigned():
                self._sessions.assigned(connection, message)
            case Terminated():
                self._sessions.terminated(message.job_id)
            case _:
                _logger.warning("%s: the server registered the worker again", connection.registration)

    def lost(self, connection: Connection) -> None:
        self._sessions.lost(connection)

    def changed(self, connection: Connection) -> None:
        if self._told_state != (told := self._state()):
            self._told_state = told
            self._pool.publish(SourceChanged("livekit", *told))

    def _on_event(self, event: Event) -> None:
        self._reporter.poke()
        self._starts.poke()
        if isinstance(event, Reloaded):
            self._compare_registrations()

    def _compare_registrations(self) -> None:
        try:
            is_same = self._find_registrations() == self._registrations
        except GreenroomError as error:
            _logger.warning("%s; the worker stays registered as it was", error)
            return
        if not is_same:
            _logger.warning("the reloaded app has another agent name, type or permissions: restart the worker for that")

    # --- the rest --------------------------------------------------------------------------------

    def _jobs_changed(self) -> None:
        self._reporter.poke()
        for watch in self._watches:
            watch.poke()

    def _loss_watches(self, options: LiveKitOptions, rooms: dict[Server, Rooms]) -> list[LossWatch]:
        if options.livekit_restart != "on_worker_loss":
            return []
        return [LossWatch(options, server, api, self._sessions, self._restarter) for server, api in rooms.items()]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


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
