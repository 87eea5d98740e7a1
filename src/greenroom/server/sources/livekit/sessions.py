"""LiveKit jobs, from the offer to the end: asked about at the admission, started, followed, told back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from livekit.protocol import agent

from ....errors import GreenroomError, LaunchError
from ....integrations.livekit import orders
from ....integrations.livekit.labels import labels_of
from ....integrations.livekit.orders import Order
from ....pool import JobHandle, ProcessPool
from ....pool.events import OfferAnswered, TurnedDown
from ....pool.labels import tidy_labels
from ....report import ExitReport
from ....wire import payload
from ...admission import Acceptance, Admission, Offer, RejectedByApp
from . import protocol
from .connection import Connection
from .jobs import Do, Event, JobTable, Phase
from .outcomes import status_of
from .protocol import Assigned, JobStatus, Offered
from .starts import StartQueue

__all__ = ["Session", "Sessions"]

_logger = logging.getLogger("greenroom.livekit")

ASSIGNMENT_TIMEOUT = 7.5
"""Seconds from our acceptance: the same as LiveKit's own worker has."""
ANSWER_TIMEOUT = 2.5
"""The server gives an offer up after 2.8 s; a later answer is of no use to anybody."""
LONGEST_OFFER = 2.3
"""That leaves the pool the time to say in its own words that no process was there."""
HELD_UP = 0.5
"""Seconds: a deadline that is looked at so late was slept through, by the whole worker."""
KEPT_ENDS = 1000


@dataclass(eq=False)
class Session:
    """One LiveKit job."""

    connection: Connection
    job: agent.Job
    order: Order
    acceptance: Acceptance | None = None
    answer: bytes = b""
    kept_until: float = 0.0
    """On the event loop's clock: how long its process is kept for it without an order."""
    expiry: asyncio.TimerHandle | None = None
    considering: asyncio.Task[None] | None = None
    following: asyncio.Task[None] | None = None
    handle: JobHandle | None = None
    terminated: bool = False
    """The server does not want it any more."""

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def labels(self) -> dict[str, str]:
        return tidy_labels(labels_of(self.job))

    @property
    def extra(self) -> dict[str, object]:
        """What log lines about it carry."""
        return {"job_id": self.id, "labels": self.labels}

    @property
    def is_running(self) -> bool:
        return self.handle is not None and self.handle.report is None and self.handle.start_seconds is not None


class Sessions:
    """``on_end`` is called with each session that has ended, after the server was told: it may restart it."""

    def __init__(
        self,
        pool: ProcessPool,
        admission: Admission,
        offer_timeout: float,
        starts: StartQueue,
        on_end: Callable[[Session, ExitReport], object],
        on_change: Callable[[], object],
    ) -> None:
        self.table = JobTable()
        self.answers = 0
        self.last_answer_seconds: float | None = None
        self._pool = pool
        self._admission = admission
        self._offer_timeout = min(offer_timeout, LONGEST_OFFER)
        self._starts = starts
        self._on_end = on_end
        self._on_change = on_change
        self._sessions: dict[str, Session] = {}
        self._untold: dict[Connection, deque[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def live(self) -> list[Session]:
        """Those that start or run."""
        return [session for session in self._sessions.values() if self.table.phase(session.id) is Phase.LIVE]

    async def settled(self, timeout: float) -> None:
        """Wait until every end was told."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    # --- offers ----------------------------------------------------------------------------------

    def offered(self, connection: Connection, offer: Offered) -> None:
        known = self._sessions.get(offer.job_id)
        if known is not None and known.connection is not connection:
            _logger.warning("job %s is offered by two servers; the second is told no", offer.job_id)
            connection.send(protocol.turned_down(offer.job_id))
            return
        do = self.table.on(offer.job_id, Event.OFFER)
        if do is Do.CONSIDER:
            session = Session(connection, offer.job, _order_of(offer.job))
            self._sessions[session.id] = session
            session.considering = self._spawn(self._consider(session), f"greenroom-offer-{session.id}")
        elif do is Do.ANSWER_YES_AGAIN and known is not None:
            connection.send(known.answer)
        elif do is Do.ANSWER_NO:
            phase = self.table.phase(offer.job_id).value
            _logger.warning("job %s is offered again, and is %s here already: turned down", offer.job_id, phase)
            connection.send(protocol.turned_down(offer.job_id))

    async def _consider(self, session: Session) -> None:
        began = time.monotonic()
        try:
            await self._reserve(session)
        except asyncio.CancelledError:
            self._settle(session, Event.TURN_DOWN)
            raise
        except RejectedByApp as error:
            self._turn_down(session, error, final=error.final)
        except TimeoutError:
            cause = f"neither a process nor the app had said yes within {ANSWER_TIMEOUT:g} s"
            self._pool.publish(TurnedDown(session.id, "livekit", "offer_timeout", cause, session.labels))
            self._turn_down(session, cause)
        except (GreenroomError, TypeError, ValueError) as error:
            self._turn_down(session, error)
        except Exception:
            # Whatever it is, the server waits for an answer, and no other worker is asked before it has one.
            _logger.exception("job %s could not be considered", session.id, extra=session.extra)
            self._turn_down(session, "an error of the worker's own")
        self._note_answer(session, time.monotonic() - began)

    async def _reserve(self, session: Session) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            metadata = payload.encode(session.order.encode())
            acceptance = await self._admission.offer(
                Offer("livekit", metadata, session.id, self._offer_timeout, labels=session.labels)
            )
        try:
            accept = orders.Acceptance.of(acceptance.answer, session.id)
            session.answer = protocol.accepted(session.id, accept, session.connection.registration.agent_name)
        except (TypeError, ValueError) as error:
            acceptance.release("the app's answer cannot be told to the server")
            raise TypeError(f"the app accepted it with an answer that cannot be told: {error}") from error
        session.acceptance = acceptance
        session.order = replace(session.order, accept=accept, accepted_at=time.time())
        if self._settle(session, Event.ACCEPT) is Do.ANSWER_YES:
            session.connection.send(session.answer)
            session.kept_until = asyncio.get_running_loop().time() + self._pool.options.reservation_timeout
            self._expire_in(session, ASSIGNMENT_TIMEOUT)

    def _turn_down(self, session: Session, cause: object, *, final: bool = False) -> None:
        if self._settle(session, Event.TURN_DOWN) is Do.ANSWER_NO:
            session.connection.send(protocol.turned_down(session.id, final=final))
            _logger.info("job %s was turned down: %s", session.id, cause, extra=session.extra)

    def _note_answer(self, session: Session, seconds: float) -> None:
        self.answers += 1
        self.last_answer_seconds = seconds
        self._pool.publish(OfferAnswered(session.id, "livekit", session.acceptance is not None, seconds))

    def _expire_in(self, session: Session, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        session.expiry = loop.call_later(seconds, self._expired, session, loop.time() + seconds)

    def _expired(self, session: Session, due: float) -> None:
        if asyncio.get_running_loop().time() - due > HELD_UP:
            self._expire_in(session, HELD_UP)  # the assignment may be there, and is to be read first
        elif self._settle(session, Event.EXPIRY, f"it was not assigned within {ASSIGNMENT_TIMEOUT:g} s") is Do.RELEASE:
            text = "job %s was accepted, and not assigned within %g s"
            _logger.warning(text, session.id, ASSIGNMENT_TIMEOUT, extra=session.extra)

    # --- assignments -----------------------------------------------------------------------------

    def assigned(self, connection: Connection, assignment: Assigned) -> None:
        session, job_id = self._sessions.get(assignment.job_id), assignment.job_id
        is_foreign = session is not None and session.connection is not connection
        before = self.table.phase(job_id)
        do = Do.REFUSE if is_foreign else self.table.on(job_id, Event.ASSIGNMENT)
        if do is not Do.START or session is None:
            phase = "unknown (it was never offered)" if before is Phase.UNKNOWN else before.value
            _logger.warning("job %s is assigned and is not started: here it is %s", job_id, phase)
            if do is Do.TELL_FAILURE:
                late = f"not started: it was assigned later than {ASSIGNMENT_TIMEOUT:g} s after it was accepted"
                connection.send(protocol.job_status(job_id, "failed", late))
            return
        self._start(session, assignment)

    def _start(self, session: Session, assignment: Assigned) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
        session.job = assignment.job
        session.order = replace(
            session.order,
            job=assignment.job.SerializeToString(),
            url=assignment.url or session.connection.registration.server.url,
            token=assignment.token,
            worker_id=session.connection.worker_id,
            assigned_at=time.time(),
        )
        if self._starts.is_needed:
            session.following = self._spawn(self._launch_later(session), f"greenroom-livekit-{session.id}")
        else:
            self._launch(session)

    async def _launch_later(self, session: Session) -> None:
        # Half of it is enough of a margin for two clocks that began at nearly the same time.
        await self._starts.stand_in((session.kept_until - asyncio.get_running_loop().time()) / 2)
        if session.terminated:
            self._tell_end(session, "success", "")  # as the server itself counts it
        else:
            self._launch(session)

    def _launch(self, session: Session) -> None:
        session.order = replace(session.order, launched_at=time.time())
        assert session.acceptance is not None
        try:
            session.handle = session.acceptance.start(payload.encode(session.order.encode()))
        except LaunchError as error:
            text = "job %s was accepted, and cannot be started: %s"
            _logger.warning(text, session.id, error, extra=session.extra)
            self._tell_end(session, "failed", f"not started: {error}")
            return
        session.following = self._spawn(self._follow(session, session.handle), f"greenroom-livekit-{session.id}")
        self._on_change()

    async def _follow(self, session: Session, handle: JobHandle) -> None:
        try:
            await handle.started()
        except GreenroomError as error:
            # Told now: until the report is there, the process has to be gone.
            self._tell_end(session, *_unstarted(session, handle, error))
            report = await handle.wait()
        else:
            session.connection.send(protocol.job_status(session.id, "running"))
            report = await handle.wait()
            self._tell_end(session, *status_of(report))
        self._on_end(session, report)

    def _tell_end(self, session: Session, status: JobStatus, error: str) -> None:
        self._settle(session, Event.END)
        update = protocol.job_status(session.id, status, error)
        if not session.connection.send(update):
            self._untold.setdefault(session.connection, deque(maxlen=KEPT_ENDS)).append(update)

    # --- what else the server says, or does not --------------------------------------------------

    def terminated(self, job_id: str) -> None:
        session = self._sessions.get(job_id)
        do = self.table.on(job_id, Event.TERMINATION)
        if session is None or do is Do.IGNORE:
            _logger.debug("job %s is to be ended, and is %s here", job_id, self.table.phase(job_id).value)
            return
        _logger.info("job %s is to be ended: the server says so", job_id, extra=session.extra)
        session.terminated = True
        if do is Do.CANCEL and session.handle is not None:
            session.handle.cancel(orders.ENDED_BY_SERVER, unless_ending=True)
        else:
            self._withdraw(session, "the LiveKit server withdrew the job")

    def lost(self, connection: Connection) -> None:
        """What was not assigned yet is void: the server has forgotten it, or asked another worker."""
        for session in [each for each in self._sessions.values() if each.connection is connection]:
            self.table.on(session.id, Event.LOSS)
            if self.table.phase(session.id) is not Phase.LIVE:
                self._withdraw(session, "the connection was lost before the job was assigned")

    def registered(self, connection: Connection) -> None:
        """Report the jobs that outlived the connection on which they came, and the ends that could not be told."""
        live = [session for session in self.live() if session.connection is connection]
        if live:
            connection.send(protocol.migrate(session.id for session in live))
            for session in live:
                if session.is_running:
                    connection.send(protocol.job_status(session.id, "running"))
        for update in self._untold.pop(connection, ()):
            connection.send(update)

    # --- bookkeeping -----------------------------------------------------------------------------

    def _settle(self, session: Session, event: Event, reason: str = "it was withdrawn") -> Do:
        """Note an event, and if that is its end, let go of what is kept for it."""
        if self._sessions.get(session.id) is not session:
            do = Do.RELEASE  # another offer of it has taken its place
        else:
            do = self.table.on(session.id, event)
        if do is Do.RELEASE and session.acceptance is not None:
            session.acceptance.release(reason)
        self._forget_if_over(session)
        return do

    def _withdraw(self, session: Session, reason: str) -> None:
        if session.considering is not None:
            session.considering.cancel()
        if session.acceptance is not None:
            session.acceptance.release(reason)
        self._forget_if_over(session)

    def _forget_if_over(self, session: Session) -> None:
        if self.table.phase(session.id) in (Phase.OFFERED, Phase.ACCEPTED, Phase.LIVE):
            return
        if session.expiry is not None:
            session.expiry.cancel()
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _order_of(job: agent.Job) -> Order:
    """What is known of it when it is offered. A room that was dispatched anew says so in the job's attributes."""
    told = job.attributes.get(orders.RESTARTS_ATTRIBUTE, "")
    restarts = int(told) if told.isascii() and told.isdigit() else 0
    return Order(job.SerializeToString(), restarts=restarts, received_at=time.time())


def _unstarted(session: Session, handle: JobHandle, error: GreenroomError) -> tuple[JobStatus, str]:
    if session.terminated:
        return "success", ""  # as the server itself counts it
    return status_of(handle.report) if handle.report is not None else ("failed", f"not started: {error}")
