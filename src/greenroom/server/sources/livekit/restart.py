"""A job that crashed is started again: in the same room, as the same participant, in a fresh process."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import replace

from ....errors import GreenroomError
from ....integrations.livekit.orders import Order
from ....pool import JobHandle
from ....report import ExitReport
from ....settings.livekit import LiveKitOptions
from ....wire import payload
from ...admission import Admission, Offer, RejectedByApp
from .backoff import backoff
from .config import Server
from .outcomes import is_crash, may_restart
from .rooms import NotThere, Rooms, RoomsError, people_in
from .sessions import Session

__all__ = ["Restarter"]

_logger = logging.getLogger("greenroom.livekit")

LOOK_EVERY = 5.0
"""Seconds between two looks whether a job is still wanted. The server has forgotten it, and cannot tell."""


class Restarter:
    """The server knows nothing of a second run: it was told the truth, that the job had failed."""

    def __init__(self, options: LiveKitOptions, admission: Admission, rooms: Mapping[Server, Rooms]) -> None:
        self._options = options
        self._admission = admission
        self._rooms = rooms
        self._tasks: dict[asyncio.Task[None], JobHandle | None] = {}
        self._is_paused = False
        self.runs: dict[str, Session] = {}
        """What is started again or runs again now, by the LiveKit job's id."""

    def pause(self) -> None:
        """Start none any more; those that run go on."""
        self._is_paused = True

    async def settled(self, timeout: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in list(self._tasks):
            task.cancel()

    def ended(self, session: Session, report: ExitReport) -> None:
        """Start it again, if that is wanted."""
        if may_restart(self._options, report, session.order.restarts) and session.order.token:
            task = asyncio.create_task(self._run(session, report), name=f"greenroom-restart-{session.id}")
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _run(self, session: Session, report: ExitReport) -> None:
        self.runs[session.id] = session
        try:
            await self._again_and_again(session, report)
        finally:
            del self.runs[session.id]

    async def _again_and_again(self, session: Session, report: ExitReport) -> None:
        order = session.order
        while may_restart(self._options, report, order.restarts):
            order = replace(order, restarts=order.restarts + 1)
            await asyncio.sleep(backoff(order.restarts, random.random(), first=0.25))
            if self._is_paused:
                return
            try:
                if (reason := await self._unwanted(session)) is not None:
                    _logger.info("job %s is not started again: %s", session.id, reason, extra=session.extra)
                    return
                handle = await self._start(session, order)
            except RejectedByApp as error:
                _logger.info(
                    "job %s is not started again: the app turned it down: %s", session.id, error, extra=session.extra
                )
                return
            except (GreenroomError, ValueError) as error:
                _logger.warning(
                    "job %s could not be started again (attempt %d): %s",
                    session.id,
                    order.restarts,
                    error,
                    extra=session.extra,
                )
                continue
            report = await self._follow(session, handle)
        if is_crash(report):
            _logger.error(
                "job %s is given up after %d restarts: %s",
                session.id,
                order.restarts,
                report.detail,
                extra=session.extra,
            )

    async def _start(self, session: Session, order: Order) -> JobHandle:
        now = time.time()
        token = session.connection.signer.again(order.token, now)
        order = replace(order, token=token, accepted_at=now, assigned_at=now, launched_at=now)
        session.order = order
        run_id, data = f"{session.id}~{order.restarts}", payload.encode(order.encode())
        timeout = self._options.livekit_offer_timeout
        acceptance = await self._admission.offer(Offer("livekit", data, run_id, timeout, labels=session.labels))
        room = session.job.room.name
        _logger.warning(
            "job %s is started again in room %s, as %s (restart %d)",
            session.id,
            room,
            run_id,
            order.restarts,
            extra=session.extra,
        )
        return acceptance.start()

    async def _follow(self, session: Session, handle: JobHandle) -> ExitReport:
        """Wait for its end, or bring it about when its dispatch is deleted."""
        ending = asyncio.create_task(handle.wait())
        try:
            while not (await asyncio.wait({ending}, timeout=LOOK_EVERY))[0]:
                if await self._is_deleted(session):
                    handle.cancel("its dispatch was deleted at the LiveKit server", unless_ending=True)
            return ending.result()
        finally:
            ending.cancel()

    async def _unwanted(self, session: Session) -> str | None:
        """Why nobody needs it any more. Raises :class:`RoomsError` if that cannot be found out."""
        name = session.job.room.name
        try:
            participants = await self._room_api(session).participants(name)
        except NotThere:
            return f"room {name!r} is gone"
        if not people_in(participants):
            return f"nobody is in room {name!r}"
        return "its dispatch was deleted" if await self._is_deleted(session) else None

    async def _is_deleted(self, session: Session) -> bool:
        if not session.job.dispatch_id:
            return False
        try:
            await self._room_api(session).dispatch(session.job.room.name, session.job.dispatch_id)
        except NotThere:
            return True
        except RoomsError as error:
            _logger.debug("cannot find out whether job %s is still wanted: %s", session.id, error, extra=session.extra)
        return False

    def _room_api(self, session: Session) -> Rooms:
        return self._rooms[session.connection.registration.server]
