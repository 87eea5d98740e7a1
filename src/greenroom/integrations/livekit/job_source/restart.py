"""Restart of crashed jobs: in the same room, as the same participant, in a fresh process.

This code runs in the worker. The worker reports the crashed job as failed to the server, and then starts the job again
without a new assignment. So the server does not know of the further runs of the job. Each further run is a job of its
own in the pool. Its id, the run id, is the id of the LiveKit job with the number of the restart.

:mod:`.failover` starts jobs of *other* workers again, after the loss of such a worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Mapping
from dataclasses import replace

from ....backoff import backoff
from ....errors import GreenroomError
from ....exit_report import ExitReport
from ....log_fields import log_fields
from ....sources import Host, JobHandle, Offer, RejectedByApp
from ....wire import payload
from ..job_order import Order
from ..options import LiveKitOptions
from .livekit_job import LiveKitJob
from .livekit_protocol import JobStatus
from .registrations import Server
from .rooms import NotThere, Rooms, RoomsError, people_in
from .worker_news import WorkerNews

__all__ = ["Restarter", "is_crash", "may_restart", "status_of"]

_logger = logging.getLogger("greenroom.livekit")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds before a restart, which double with each restart of the job. A random part, up to a half, is taken off."""
LOOK_EVERY = 5.0
"""Seconds between two checks whether the dispatch of a restarted job still exists.

The server counts such a job as ended, and so never sends a termination for it.
"""


class Restarter:
    """Restarter of crashed jobs.

    The order of the calls is :meth:`ended` for each ended session, :meth:`pause` when the worker drains, and
    :meth:`settled` when the worker closes.
    """

    def __init__(self, options: LiveKitOptions, host: Host, rooms: Mapping[Server, Rooms], news: WorkerNews) -> None:
        self._options = options
        self._host = host
        self._rooms = rooms
        self._news = news
        self._orders: dict[str, Order] = {}
        """Orders of the jobs that run again, by the ids of the runs."""
        self._tasks: dict[asyncio.Task[None], JobHandle | None] = {}
        self._is_paused = False
        self.runs: dict[str, LiveKitJob] = {}
        """Jobs that run again or wait for their next start, by their ids."""

    def pause(self) -> None:
        """Start no job again from now on. Restarted jobs that run go on."""
        self._is_paused = True

    async def settled(self, timeout: float) -> None:
        """Wait for the ends of the restarted jobs, for at most ``timeout`` seconds. Then cancel the remaining tasks."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in list(self._tasks):
            task.cancel()

    def launched(self) -> dict[str, Order]:
        """Return the orders of the jobs that run again, by the ids of the runs."""
        return dict(self._orders)

    def ended(self, session: LiveKitJob, report: ExitReport) -> None:
        """Start the job of an ended session again, if :func:`may_restart` allows a restart."""
        if may_restart(self._options, report, session.order.restarts) and session.order.token:
            task = asyncio.create_task(self._run(session, report), name=f"greenroom-restart-{session.id}")
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _run(self, session: LiveKitJob, report: ExitReport) -> None:
        self.runs[session.id] = session
        try:
            await self._again_and_again(session, report)
        finally:
            del self.runs[session.id]

    async def _again_and_again(self, session: LiveKitJob, report: ExitReport) -> None:
        order = session.order
        while may_restart(self._options, report, order.restarts):
            order = replace(order, restarts=order.restarts + 1)
            pause = backoff(order.restarts, first=FIRST_PAUSE, longest=LONGEST_PAUSE, chance=random.random())
            await asyncio.sleep(pause)
            if self._is_paused:
                return
            try:
                if (reason := await self._unwanted(session)) is not None:
                    extra = log_fields("job_not_restarted", **session.ids, cause=reason)
                    _logger.info("job %s is not started again: %s", session.id, reason, extra=extra)
                    return
                handle = await self._start(session, order)
            except RejectedByApp as error:
                extra = log_fields("job_not_restarted", **session.ids, cause=str(error))
                text = "job %s is not started again: the app rejected it: %s"
                _logger.info(text, session.id, error, extra=extra)
                return
            except (GreenroomError, ValueError) as error:
                extra = log_fields("job_not_restarted", **session.ids, cause=str(error), restarts=order.restarts)
                text = "job %s could not be started again (attempt %d): %s"
                _logger.warning(text, session.id, order.restarts, error, extra=extra)
                continue
            report = await self._follow(session, handle)
        if is_crash(report):
            extra = log_fields("job_given_up", **session.ids, cause=report.detail, restarts=order.restarts)
            text = "job %s is given up after %d restarts: %s"
            _logger.error(text, session.id, order.restarts, report.detail, extra=extra)

    async def _start(self, session: LiveKitJob, order: Order) -> JobHandle:
        now = time.time()
        token = session.connection.signer.again(order.token, now)
        order = replace(order, token=token, accepted_at=now, assigned_at=now, launched_at=now)
        session.order = order
        run_id, data = f"{session.id}~{order.restarts}", payload.encode(order.encode())
        timeout = self._options.livekit_offer_timeout
        acceptance = await self._host.offer(
            Offer(
                "livekit",
                data,
                run_id,
                timeout,
                labels=session.labels,
                shown=session.shown,
                stalls_before=math.inf,  # the worker itself wants it
            )
        )
        room = session.job.room.name
        extra = log_fields("job_restarted", **session.ids, run=run_id, restarts=order.restarts)
        text = "job %s is started again in room %s, as %s (restart %d)"
        _logger.warning(text, session.id, room, run_id, order.restarts, extra=extra)
        handle = acceptance.start()
        self._orders[run_id] = order
        self._news.launched(run_id, order)
        return handle

    async def _follow(self, session: LiveKitJob, handle: JobHandle) -> ExitReport:
        """Wait for the end of a restarted job, and return its report. Cancel the job when its dispatch is deleted."""
        ending = asyncio.create_task(handle.wait())
        try:
            while not (await asyncio.wait({ending}, timeout=LOOK_EVERY))[0]:
                if await self._is_deleted(session):
                    handle.cancel("its dispatch was deleted at the LiveKit server", unless_ending=True)
            return ending.result()
        finally:
            ending.cancel()
            self._orders.pop(handle.id, None)

    async def _unwanted(self, session: LiveKitJob) -> str | None:
        """Return why the job is not needed any more; ``None`` if it is needed. Raises :class:`RoomsError`."""
        name = session.job.room.name
        try:
            participants = await self._room_api(session).participants(name)
        except NotThere:
            return f"room {name!r} is gone"
        if not people_in(participants):
            return f"nobody is in room {name!r}"
        return "its dispatch was deleted" if await self._is_deleted(session) else None

    async def _is_deleted(self, session: LiveKitJob) -> bool:
        if not session.job.dispatch_id:
            return False
        try:
            await self._room_api(session).dispatch(session.job.room.name, session.job.dispatch_id)
        except NotThere:
            return True
        except RoomsError as error:
            server = session.connection.registration.server.url
            extra = log_fields("livekit_api_failed", **session.ids, server=server, cause=str(error))
            _logger.debug("cannot find out whether job %s is still wanted: %s", session.id, error, extra=extra)
        return False

    def _room_api(self, session: LiveKitJob) -> Rooms:
        return self._rooms[session.connection.registration.server]


_MEANT = frozenset({"completed", "cancelled", "drained", "job_timeout", "shutdown_timeout"})
"""Reasons of an end that was requested, or that a limit caused. A restart would undo such an end."""


def status_of(report: ExitReport) -> tuple[JobStatus, str]:
    """Return the status and the error text for the server. The text has the reason and the detail of the exit report.

    A job that was cancelled is a success, unless the worker's drain ended the job.
    """
    was_wanted = report.outcome == "cancelled" and report.reason != "drained"
    if report.outcome == "succeeded" or was_wanted:
        return "success", ""
    return "failed", f"{report.reason}: {report.detail}"


def is_crash(report: ExitReport) -> bool:
    """Return whether the job failed or was killed without a request or a limit.

    An exception that the job raises is a crash, too.
    """
    return report.outcome in ("failed", "killed") and report.reason not in _MEANT


def may_restart(options: LiveKitOptions, report: ExitReport, restarts: int) -> bool:
    """Return whether a job may start again. ``restarts`` is the number of restarts of the job so far."""
    return options.livekit_restart != "never" and is_crash(report) and restarts < options.livekit_max_restarts
