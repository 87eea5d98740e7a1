"""Failover: workers notice that a peer is gone, and have the server give the peer's jobs to other workers.

A peer is another worker on the same LiveKit server. This code runs in every worker. Each worker has a *lease*: a room
without participants, whose metadata names the worker's jobs (:mod:`.leases`). A worker renews its lease, and looks at
the leases of its peers. If a lease was not renewed for ``livekit_loss_timeout`` seconds, its worker is lost.

Then the peers take care of each job of the lost worker: they delete the dispatch of the job, and make the same dispatch
again. The delete succeeds for only one peer, so a job is dispatched once. In the end, the lease is deleted.

``docs/livekit-redispatch.md`` explains the design.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from typing import Any

from livekit.protocol.agent_dispatch import AgentDispatch

from ....job_labels import tidy_labels
from ....log_fields import log_fields
from ..job_order import RESTARTS_ATTRIBUTE
from ..options import LiveKitOptions
from .leases import PREFIX, Holding, Lease, LeaseBook
from .livekit_jobs import LiveKitJobs
from .registrations import Server
from .restart import Restarter
from .rooms import NotThere, Rooms, RoomsError, people_in

__all__ = ["FailoverWatch"]

_logger = logging.getLogger("greenroom.livekit")

LOOKS = 5
"""Number of times within ``livekit_loss_timeout`` that each worker renews its lease, and looks at other leases."""
SHORTEST = 0.2
"""Shortest time between two renewals of the lease, in seconds, however often the jobs change."""
ROOM_TIMEOUT = 3600
"""Seconds after which the server removes the room of a lease. At the next renewal, the worker makes the room again."""
PATIENCE = 120.0
"""Seconds for the agent of a lost worker to leave its room as a participant. An agent that stays longer is alive."""
CONFIRM_EVERY = 1.0
"""Seconds between two checks whether a worker has taken a new dispatch."""
CONFIRM_LOOKS = 5
"""Number of these checks before the dispatch is made again."""
ATTEMPTS = 3
"""Highest number of dispatches for one lost job. A server that finds no worker for a dispatch never tries again."""


class FailoverWatch:
    """Watch on one server, which keeps the lease of this worker there, and looks at the leases of the peers.

    The order of the calls is :meth:`run`, :meth:`notify` at each change of the jobs, and :meth:`close` after the end of
    :meth:`run`. A worker that dies never calls :meth:`close`, so its lease stays for the peers.
    """

    def __init__(
        self, options: LiveKitOptions, server: Server, rooms: Rooms, sessions: LiveKitJobs, restarter: Restarter
    ) -> None:
        self.lease_room = f"{PREFIX}{secrets.token_hex(8)}"
        self._max_restarts = options.livekit_max_restarts
        self._interval = options.livekit_loss_timeout / LOOKS
        self._server = server
        self._rooms = rooms
        self._sessions = sessions
        self._restarter = restarter
        self._book = LeaseBook(options.livekit_loss_timeout)
        self._beats = count(1)
        self._changed = asyncio.Event()
        self._given_up: dict[str, float] = {}
        """End of the wait for the agents of each lost worker to leave, on the monotonic clock, by the lease."""
        self._confirming: set[asyncio.Task[None]] = set()

    def notify(self) -> None:
        """Renew the lease soon, since the jobs may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Renew the own lease, and look at the leases of the peers, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep())
            tasks.create_task(self._look_around())

    async def close(self) -> None:
        """Delete the own lease: this worker ends in order, so the peers need not dispatch its jobs anew."""
        for task in self._confirming:
            task.cancel()
        try:
            await self._rooms.delete_room(self.lease_room)
        except RoomsError as error:
            extra = log_fields("livekit_api_failed", server=self._server.url, cause=str(error))
            _logger.debug("the lease could not be deleted: %s", error, extra=extra)

    # --- the own lease ---------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._renew(Lease(next(self._beats), tuple(self._holdings())).encode())
            except RoomsError as error:
                extra = log_fields("livekit_api_failed", server=self._server.url, cause=str(error))
                text = "the lease could not be renewed, so peers do not know the jobs of this worker: %s"
                _logger.warning(text, error, extra=extra)
            await asyncio.sleep(SHORTEST)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._changed.wait()

    async def _renew(self, text: str) -> None:
        try:
            await self._rooms.set_metadata(self.lease_room, text)
        except NotThere:
            await self._rooms.create_room(self.lease_room, text, ROOM_TIMEOUT)

    def _holdings(self) -> Iterable[Holding]:
        for session in (*self._sessions.live(), *self._restarter.runs.values()):
            if session.connection.registration.server == self._server:
                order, job = session.order, session.job
                yield Holding(job.id, job.room.name, job.dispatch_id, order.accept.identity, order.restarts)

    # --- the leases of the peers -----------------------------------------------------------------

    async def _look_around(self) -> None:
        while True:
            # The pause is random: if several workers notice the same loss, one worker is first.
            await asyncio.sleep(self._interval * random.uniform(0.6, 1.2))
            try:
                await self._look()
            except RoomsError as error:
                extra = log_fields("livekit_api_failed", server=self._server.url, cause=str(error))
                _logger.debug("cannot check for lost workers: %s", error, extra=extra)

    async def _look(self) -> None:
        found = {room.name: room.metadata for room in await self._rooms.rooms() if room.name.startswith(PREFIX)}
        found.pop(self.lease_room, None)
        lost = self._book.observe(found, time.monotonic())
        self._given_up = {name: until for name, until in self._given_up.items() if name in lost}
        for name in lost:
            await self._settle(name, Lease.decode(found[name]))

    async def _settle(self, name: str, lease: Lease | None) -> None:
        """Take care of the jobs in the lease of a lost worker, and then delete this lease."""
        if lease is None:
            return
        now = time.monotonic()
        if name not in self._given_up:
            worker, jobs = name.removeprefix(PREFIX), len(lease.jobs)
            extra = log_fields("worker_lost", worker=worker, jobs=jobs, server=self._server.url)
            _logger.warning("worker %s is lost, with %d jobs", worker, jobs, extra=extra)
        is_overdue = now > self._given_up.setdefault(name, now + PATIENCE)
        pending = [job for job in lease.jobs if not await self._take_care(job)]
        if not pending or is_overdue:
            with suppress(NotThere):  # a peer has deleted the lease meanwhile
                await self._rooms.delete_room(name)

    async def _take_care(self, job: Holding) -> bool:
        """Dispatch a job of a lost worker anew, if needed. Return whether no more care is needed for this job."""
        try:
            participants = await self._rooms.participants(job.room)
            dispatch = await self._rooms.dispatch(job.room, job.dispatch_id)
        except NotThere:
            return True  # the room is gone, or another worker has taken care of it
        present = {participant.identity for participant in participants}
        if job.identity in present:
            # The agent is alive, or the server has not noticed its death. The room must not get a second agent.
            return False
        if not people_in(participants):
            return True
        if job.restarts >= self._max_restarts:
            extra = log_fields("job_given_up", **_ids(job), restarts=job.restarts)
            text = "job %s in room %s is given up after %d restarts"
            _logger.error(text, job.job_id, job.room, job.restarts, extra=extra)
            return True
        others = present & {other.state.participant_identity for other in dispatch.state.jobs}
        if others:
            extra = log_fields("redispatch_skipped", **_ids(job))
            text = "room %s: other agents of dispatch %s are still in the room, so the dispatch stays unchanged"
            _logger.warning(text, job.room, dispatch.id, extra=extra)
            return True
        await self._dispatch_anew(dispatch, job)
        return True

    async def _dispatch_anew(self, dispatch: AgentDispatch, job: Holding) -> None:
        try:
            # This delete decides between the peers: only one peer can delete the dispatch.
            await self._rooms.delete_dispatch(job.room, dispatch.id)
        except NotThere:
            return
        attributes = {RESTARTS_ATTRIBUTE: str(job.restarts + 1)}
        new = await self._rooms.create_dispatch(dispatch, attributes)
        text = "room %s lost its agent with job %s: a new dispatch is made, %s"
        extra = log_fields("redispatched", **_ids(job), new_dispatch=new.id)
        _logger.warning(text, job.room, job.job_id, new.id, extra=extra)
        task = asyncio.create_task(self._confirm(new, attributes), name=f"greenroom-confirm-{new.id}")
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(self, dispatch: AgentDispatch, attributes: dict[str, str]) -> None:
        """Wait until a worker has taken the dispatch. Otherwise make the dispatch again, up to ``ATTEMPTS`` times."""
        try:
            for _ in range(ATTEMPTS - 1):
                if await self._is_taken(dispatch):
                    return
                await self._rooms.delete_dispatch(dispatch.room, dispatch.id)
                dispatch = await self._rooms.create_dispatch(dispatch, attributes)
            if not await self._is_taken(dispatch):
                extra = log_fields("redispatch_failed", labels=_labels(dispatch.room, dispatch.id))
                text = "room %s lost its agent, and no worker took the new dispatch"
                _logger.error(text, dispatch.room, extra=extra)
        except NotThere:
            return  # the room or the dispatch is gone: no agent is needed
        except RoomsError as error:
            labels = _labels(dispatch.room, dispatch.id)
            extra = log_fields("livekit_api_failed", server=self._server.url, cause=str(error), labels=labels)
            text = "room %s: cannot check whether it has an agent again: %s"
            _logger.warning(text, dispatch.room, error, extra=extra)

    async def _is_taken(self, dispatch: AgentDispatch) -> bool:
        for _ in range(CONFIRM_LOOKS):
            await asyncio.sleep(CONFIRM_EVERY)
            if (await self._rooms.dispatch(dispatch.room, dispatch.id)).state.jobs:
                return True
        return False


def _ids(job: Holding) -> dict[str, Any]:
    """Return the fields of all log lines about a job of a lost worker."""
    return {"job_id": job.job_id, "labels": _labels(job.room, job.dispatch_id)}


def _labels(room: str, dispatch: str) -> dict[str, str]:
    return tidy_labels({"room": room, "dispatch": dispatch})
