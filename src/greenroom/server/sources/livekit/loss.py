"""A worker that is gone is noticed by its peers on the same server, and its rooms are dispatched anew, once.

See ``docs/livekit-redispatch.md`` for why it is done like this.
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

from livekit.protocol.agent_dispatch import AgentDispatch

from ....integrations.livekit.orders import RESTARTS_ATTRIBUTE
from ....settings.livekit import LiveKitOptions
from .config import Server
from .leases import PREFIX, Holding, Lease, LeaseBook
from .restart import Restarter
from .rooms import NotThere, Rooms, RoomsError, people_in
from .sessions import Sessions

__all__ = ["LossWatch"]

_logger = logging.getLogger("greenroom.livekit")

LOOKS = 5
"""So many times within ``livekit_loss_timeout`` each worker renews its lease, and looks at those of the others."""
SHORTEST = 0.2
"""Seconds between two renewals."""
ROOM_TIMEOUT = 3600
"""A lease that nobody takes care of vanishes after so many seconds; one's own is made again."""
PATIENCE = 120.0
"""Seconds for a participant whose worker is gone to leave the room; one that stays is alive."""
CONFIRM_EVERY = 1.0
CONFIRM_LOOKS = 5
ATTEMPTS = 3
"""A server that finds no worker for a dispatch never tries again: so it is made anew, so many times in all."""


class LossWatch:
    """One server: the lease of this worker there, and a look at those of the others."""

    def __init__(
        self, options: LiveKitOptions, server: Server, rooms: Rooms, sessions: Sessions, restarter: Restarter
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
        """Of lost leases: by when one stops waiting for their participants to go."""
        self._confirming: set[asyncio.Task[None]] = set()

    def poke(self) -> None:
        """The jobs have changed, or may have."""
        self._changed.set()

    async def run(self) -> None:
        """Renew and look, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep())
            tasks.create_task(self._look_around())

    async def close(self) -> None:
        """Take the lease back: this worker ends in order, and nobody need care for its jobs."""
        for task in self._confirming:
            task.cancel()
        try:
            await self._rooms.delete_room(self.lease_room)
        except RoomsError as error:
            _logger.debug("the lease could not be taken back: %s", error)

    # --- one's own lease -------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._renew(Lease(next(self._beats), tuple(self._holdings())).encode())
            except RoomsError as error:
                _logger.warning("peers cannot be told which jobs run here: %s", error)
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

    # --- those of the others ---------------------------------------------------------------------

    async def _look_around(self) -> None:
        while True:
            # At a time of its own each time: of several that notice the same loss, one comes first.
            await asyncio.sleep(self._interval * random.uniform(0.6, 1.2))
            try:
                await self._look()
            except RoomsError as error:
                _logger.debug("cannot look after lost workers: %s", error)

    async def _look(self) -> None:
        found = {room.name: room.metadata for room in await self._rooms.rooms() if room.name.startswith(PREFIX)}
        found.pop(self.lease_room, None)
        lost = self._book.observe(found, time.monotonic())
        self._given_up = {name: until for name, until in self._given_up.items() if name in lost}
        for name in lost:
            await self._settle(name, Lease.decode(found[name]))

    async def _settle(self, name: str, lease: Lease | None) -> None:
        """Take care of what a lost worker had, and then of its lease."""
        if lease is None:
            return
        now = time.monotonic()
        if name not in self._given_up:
            _logger.warning("worker %s is gone, with %d jobs", name.removeprefix(PREFIX), len(lease.jobs))
        is_overdue = now > self._given_up.setdefault(name, now + PATIENCE)
        pending = [job for job in lease.jobs if not await self._take_care(job)]
        if not pending or is_overdue:
            with suppress(NotThere):  # a peer was as quick
                await self._rooms.delete_room(name)

    async def _take_care(self, job: Holding) -> bool:
        """Whether nothing is left to be done about it."""
        try:
            participants = await self._rooms.participants(job.room)
            dispatch = await self._rooms.dispatch(job.room, job.dispatch_id)
        except NotThere:
            return True  # the room is gone, or another worker has taken care of it
        present = {participant.identity for participant in participants}
        if job.identity in present:
            return False  # alive, or not yet found dead by the server: never two of them in one room
        if not people_in(participants):
            return True
        if job.restarts >= self._max_restarts:
            _logger.error("job %s in room %s is given up after %d restarts", job.job_id, job.room, job.restarts)
            return True
        others = present & {other.state.participant_identity for other in dispatch.state.jobs}
        if others:
            _logger.warning(
                "room %s: agents of dispatch %s go on elsewhere; it is left as it is", job.room, dispatch.id
            )
            return True
        await self._dispatch_anew(dispatch, job)
        return True

    async def _dispatch_anew(self, dispatch: AgentDispatch, job: Holding) -> None:
        try:
            # The claim: of all that try, the server lets one delete it.
            await self._rooms.delete_dispatch(job.room, dispatch.id)
        except NotThere:
            return
        attributes = {RESTARTS_ATTRIBUTE: str(job.restarts + 1)}
        new = await self._rooms.create_dispatch(dispatch, attributes)
        text = "room %s had lost its agent with job %s: dispatched anew, as %s"
        _logger.warning(text, job.room, job.job_id, new.id)
        task = asyncio.create_task(self._confirm(new, attributes), name=f"greenroom-confirm-{new.id}")
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(self, dispatch: AgentDispatch, attributes: dict[str, str]) -> None:
        """See to it that a worker has taken it."""
        try:
            for _ in range(ATTEMPTS - 1):
                if await self._is_taken(dispatch):
                    return
                await self._rooms.delete_dispatch(dispatch.room, dispatch.id)
                dispatch = await self._rooms.create_dispatch(dispatch, attributes)
            if not await self._is_taken(dispatch):
                _logger.error("room %s has lost its agent, and no worker takes its place", dispatch.room)
        except NotThere:
            return  # nobody needs it any more
        except RoomsError as error:
            _logger.warning("room %s: cannot see whether it has got an agent again: %s", dispatch.room, error)

    async def _is_taken(self, dispatch: AgentDispatch) -> bool:
        for _ in range(CONFIRM_LOOKS):
            await asyncio.sleep(CONFIRM_EVERY)
            if (await self._rooms.dispatch(dispatch.room, dispatch.id)).state.jobs:
                return True
        return False
