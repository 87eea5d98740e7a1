"""LiveKit jobs of a worker, from the offer to the end.

A worker may be connected to several LiveKit servers. The steps of one job, between the worker and the server of its
connection, are:

1. Offer: the server asks whether the worker takes a job (``offered``). The worker reserves a process for the job.
2. Answer: the worker accepts or rejects the offer. An accepted job waits for at most ``ASSIGNMENT_TIMEOUT``.
3. Assignment: the server gives the job to the worker (``assigned``), with a token for the room.
4. Start: the reserved process starts the job. The worker reports ``running``.
5. End: the worker reports ``success`` or ``failed``. Or the server ends the job earlier (``terminated``).

:mod:`.job_table` decides about messages that come twice, late, or in another order. A :class:`LiveKitJob` is the state
of one LiveKit job here. An *order* is the description of the job that the job's process gets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from ....errors import GreenroomError, LaunchError
from ....exit_report import ExitReport
from ....log_fields import log_fields
from ....sources import Host, JobHandle, Offer, RejectedByApp
from ....wire import payload
from .. import job_order as orders
from ..job_order import Order
from . import livekit_protocol
from .gate import LoadGate
from .job_table import Do, Event, JobTable, Phase
from .lanes import Lanes
from .livekit_connection import Connection
from .livekit_job import LiveKitJob, order_of
from .livekit_protocol import Assigned, JobStatus, Offered
from .restart import status_of

__all__ = ["LiveKitJobs"]

_logger = logging.getLogger("greenroom.livekit")

ASSIGNMENT_TIMEOUT = 7.5
"""Longest time between the acceptance and the assignment, in seconds, as in LiveKit's own worker."""
LANE_PATIENCE = 1.0
"""Seconds for which a job keeps its lane without a process, such as after the loss of the zygote."""
LAUNCH_MARGIN = 2.0
"""Seconds before the end of a reservation at which its job is launched, also without a free lane."""
ANSWER_TIMEOUT = 2.5
"""Longest time for the reservation of a process and the app's answer, in seconds.

The server gives an offer up after 2.8 s, and a later answer has no effect.
"""
HELD_UP = 0.5
"""Seconds. If a timer fires this much too late, the event loop of the worker was blocked."""
KEPT_ENDS = 1000
"""Number of ends, for each connection, that are kept while the connection is lost. The oldest ends are dropped."""


class LiveKitJobs:
    """LiveKit jobs of a worker.

    ``on_end`` is called at the end of each launched session, after the report to the server. The callback may restart
    the job. ``on_change`` is called when a job is launched or is over, so that the worker reports its load and its jobs
    again.
    """

    def __init__(
        self,
        host: Host,
        offer_timeout: float,
        lanes: Lanes,
        on_end: Callable[[LiveKitJob, ExitReport], object],
        on_change: Callable[[], object],
        gate: LoadGate,
    ) -> None:
        self.table = JobTable()
        self.answers = 0
        self.last_answer_seconds: float | None = None
        self._host = host
        self._offer_timeout = offer_timeout
        self._lanes = lanes
        self._on_end = on_end
        self._on_change = on_change
        self._gate = gate
        self._sessions: dict[str, LiveKitJob] = {}
        self._unreported: dict[Connection, deque[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def live(self) -> list[LiveKitJob]:
        """Return the sessions that were assigned and have not ended."""
        return [session for session in self._sessions.values() if self.table.phase(session.id) is Phase.LIVE]

    def reserved(self) -> int:
        """Return the number of jobs that passed the gate, and are not launched yet."""
        return sum(1 for one in self._sessions.values() if one.is_reserved and one.handle is None)

    def launched(self) -> dict[str, Order]:
        """Return the orders of the launched jobs that have not ended, by the ids of the jobs."""
        return {one.id: one.order for one in self.live() if one.handle is not None}

    async def settled(self, timeout: float) -> None:
        """Wait until every end is reported, for at most ``timeout`` seconds.

        This waits for all tasks, so also for offers that are still considered.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    # --- offers ----------------------------------------------------------------------------------

    def offered(self, connection: Connection, offer: Offered) -> None:
        known = self._sessions.get(offer.job_id)
        if known is not None and known.connection is not connection:
            extra = log_fields("livekit_message_refused", kind="offer", **known.ids)
            _logger.warning("job %s is offered by two servers; the second offer is rejected", offer.job_id, extra=extra)
            connection.send(livekit_protocol.rejected(offer.job_id))
            return
        do = self.table.on(offer.job_id, Event.OFFER)
        if do is Do.CONSIDER:
            stalls = self._host.stalls_over()
            session = LiveKitJob(connection, offer.job, order_of(offer.job), stalls_before=stalls)
            self._sessions[session.id] = session
            session.considering = self._spawn(self._consider(session), f"greenroom-offer-{session.id}")
        elif do is Do.ANSWER_YES_AGAIN and known is not None:
            connection.send(known.answer)
        elif do is Do.ANSWER_NO:
            phase = self.table.phase(offer.job_id).value
            extra = log_fields("livekit_message_refused", kind="offer", job_id=offer.job_id, phase=phase)
            text = "job %s is offered again, but is already %s here: the offer is rejected"
            _logger.warning(text, offer.job_id, phase, extra=extra)
            connection.send(livekit_protocol.rejected(offer.job_id))

    async def _consider(self, session: LiveKitJob) -> None:
        began = time.monotonic()
        try:
            await self._gate.check(session)
            await self._reserve(session)
        except asyncio.CancelledError:
            self._settle(session, Event.REJECT)
            raise
        except RejectedByApp as error:
            self._reject(session, error, final=error.final)
        except TimeoutError:
            cause = f"the reservation and the app's answer took longer than {ANSWER_TIMEOUT:g} s"
            self._host.report_rejection(session.id, "offer_timeout", cause, session.labels)
            self._reject(session, cause)
        except (GreenroomError, TypeError, ValueError) as error:
            self._reject(session, error)
        except Exception:
            # The server waits for an answer, and asks no other worker before it has the answer.
            extra = log_fields("internal_error", **session.ids)
            _logger.exception("job %s: internal error during the answer to the offer", session.id, extra=extra)
            self._reject(session, "internal error of the worker")
        self._note_answer(session, time.monotonic() - began)

    async def _reserve(self, session: LiveKitJob) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            metadata = payload.encode(session.order.encode())
            acceptance = await self._host.offer(
                Offer(
                    "livekit",
                    metadata,
                    session.id,
                    self._offer_timeout,
                    labels=session.labels,
                    shown=session.shown,
                    takes_promise=True,
                    stalls_before=session.stalls_before,
                )
            )
        try:
            accept = orders.Acceptance.of(acceptance.answer, session.id)
            session.answer = livekit_protocol.accepted(session.id, accept, session.connection.registration.agent_name)
        except (TypeError, ValueError) as error:
            acceptance.release("the app's answer cannot be sent to the server")
            raise TypeError(f"the app accepted it, but the answer cannot be sent: {error}") from error
        session.acceptance = acceptance
        session.order = replace(session.order, accept=accept, accepted_at=time.time())
        if self._settle(session, Event.ACCEPT) is Do.ANSWER_YES:
            session.connection.send(session.answer)
            session.kept_until = asyncio.get_running_loop().time() + self._host.options.reservation_timeout
            self._expire_in(session, ASSIGNMENT_TIMEOUT)

    def _reject(self, session: LiveKitJob, cause: object, *, final: bool = False) -> None:
        if self._settle(session, Event.REJECT) is Do.ANSWER_NO:
            session.connection.send(livekit_protocol.rejected(session.id, final=final))
            extra = log_fields("offer_rejected", **session.ids, cause=str(cause))
            _logger.info("job %s was rejected: %s", session.id, cause, extra=extra)

    def _note_answer(self, session: LiveKitJob, seconds: float) -> None:
        self.answers += 1
        self.last_answer_seconds = seconds
        self._host.report_answer(session.id, accepted=session.acceptance is not None, seconds=seconds)

    def _expire_in(self, session: LiveKitJob, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        session.expiry = loop.call_later(seconds, self._expired, session, loop.time() + seconds)

    def _expired(self, session: LiveKitJob, due: float) -> None:
        if asyncio.get_running_loop().time() - due > HELD_UP:
            # The timer is late, so the assignment may be unread in the socket. Give the connection a moment to read.
            self._expire_in(session, HELD_UP)
        elif self._settle(session, Event.EXPIRY, f"it was not assigned within {ASSIGNMENT_TIMEOUT:g} s") is Do.RELEASE:
            text = "job %s was accepted, but not assigned within %g s"
            extra = log_fields("assignment_expired", **session.ids)
            _logger.warning(text, session.id, ASSIGNMENT_TIMEOUT, extra=extra)

    # --- assignments -----------------------------------------------------------------------------

    def assigned(self, connection: Connection, assignment: Assigned) -> None:
        session, job_id = self._sessions.get(assignment.job_id), assignment.job_id
        is_foreign = session is not None and session.connection is not connection
        before = self.table.phase(job_id)
        do = Do.REFUSE if is_foreign else self.table.on(job_id, Event.ASSIGNMENT)
        if do is not Do.START or session is None:
            phase = "unknown (it was never offered)" if before is Phase.UNKNOWN else before.value
            extra = log_fields("livekit_message_refused", kind="assignment", job_id=job_id, phase=before.value)
            _logger.warning("job %s is assigned, but is not started: its phase here is %s", job_id, phase, extra=extra)
            if do is Do.REPORT_FAILURE:
                late = f"not started: it was assigned more than {ASSIGNMENT_TIMEOUT:g} s after its acceptance"
                connection.send(livekit_protocol.job_status(job_id, "failed", late))
            return
        self._start(session, assignment)

    def _start(self, session: LiveKitJob, assignment: Assigned) -> None:
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
        if self._lanes.take():
            self._launch(session)
        else:
            session.following = self._spawn(self._launch_later(session), f"greenroom-livekit-{session.id}")

    async def _launch_later(self, session: LiveKitJob) -> None:
        # The reservation may end a little before ``kept_until``.
        await self._lanes.enter(max(session.kept_until - asyncio.get_running_loop().time() - LAUNCH_MARGIN, 0.0))
        if session.terminated:
            self._lanes.leave()
            self._report_end(session, "success", "")  # the server itself counts the job as a success
        else:
            self._launch(session)

    def _launch(self, session: LiveKitJob) -> None:
        session.order = replace(session.order, launched_at=time.time())
        assert session.acceptance is not None
        try:
            session.handle = session.acceptance.start(payload.encode(session.order.encode()))
        except LaunchError as error:
            text = "job %s was accepted, but cannot be started: %s"
            extra = log_fields("job_not_started", **session.ids, source="livekit", cause=str(error))
            _logger.warning(text, session.id, error, extra=extra)
            self._lanes.leave()
            self._report_end(session, "failed", f"not started: {error}")
            return
        self._gate.news.launched(session.id, session.order)
        session.following = self._spawn(self._follow(session, session.handle), f"greenroom-livekit-{session.id}")
        self._on_change()

    async def _follow(self, session: LiveKitJob, handle: JobHandle) -> None:
        try:
            await self._started(handle)
        except GreenroomError as error:
            # Report this to the server now. The exit report comes only when the process of the job is gone.
            self._report_end(session, *_unstarted(session, handle, error))
            report = await handle.wait()
        else:
            session.lane = self._spawn(self._lanes.follow(handle), f"greenroom-livekit-lane-{session.id}")
            session.connection.send(livekit_protocol.job_status(session.id, "running"))
            report = await handle.wait()
            self._report_end(session, *status_of(report))
        self._on_end(session, report)

    async def _started(self, handle: JobHandle) -> None:
        """Wait for the start of a job that has a lane. A job that waits long for its process leaves the lane meanwhile.

        Raises the error of a job that does not start. Its lane is free then.
        """
        has_lane = True
        try:
            try:
                async with asyncio.timeout(LANE_PATIENCE):
                    await handle.started()
            except TimeoutError:
                has_lane = False
                self._lanes.leave()
                await handle.started()
        except BaseException:
            if has_lane:
                self._lanes.leave()
            raise
        if not has_lane:
            self._lanes.take_more()

    def _report_end(self, session: LiveKitJob, status: JobStatus, error: str) -> None:
        self._settle(session, Event.END)
        update = livekit_protocol.job_status(session.id, status, error)
        if not session.connection.send(update):
            self._unreported.setdefault(session.connection, deque(maxlen=KEPT_ENDS)).append(update)

    # --- other events of the connection ----------------------------------------------------------

    def terminated(self, job_id: str) -> None:
        session = self._sessions.get(job_id)
        do = self.table.on(job_id, Event.TERMINATION)
        if session is None or do is Do.IGNORE:
            phase = self.table.phase(job_id).value
            extra = log_fields("livekit_message_refused", kind="termination", job_id=job_id, phase=phase)
            _logger.debug("job %s: the server requested its end, but its phase here is %s", job_id, phase, extra=extra)
            return
        session.terminated = True
        if do is Do.CANCEL and session.handle is not None:
            session.handle.cancel(orders.ENDED_BY_SERVER, unless_ending=True)
        else:
            self._withdraw(session, "the LiveKit server withdrew the job")
        extra = log_fields("job_terminated", **session.ids)
        _logger.info("job %s: the server requested its end", job_id, extra=extra)

    def lost(self, connection: Connection) -> None:
        """Withdraw the jobs of this connection that were not assigned yet.

        The server has forgotten these jobs, or has asked another worker.
        """
        for session in [each for each in self._sessions.values() if each.connection is connection]:
            self.table.on(session.id, Event.LOSS)
            if self.table.phase(session.id) is not Phase.LIVE:
                self._withdraw(session, "the connection was lost before the job was assigned")

    def registered(self, connection: Connection) -> None:
        """Report the jobs that went on while the connection was lost, and the ends that were not reported yet."""
        live = [session for session in self.live() if session.connection is connection]
        if live:
            connection.send(livekit_protocol.migrate(session.id for session in live))
            for session in live:
                if session.is_running:
                    connection.send(livekit_protocol.job_status(session.id, "running"))
        for update in self._unreported.pop(connection, ()):
            connection.send(update)

    # --- bookkeeping -----------------------------------------------------------------------------

    def _settle(self, session: LiveKitJob, event: Event, reason: str = "it was withdrawn") -> Do:
        """Note an event, and return the action. Release the process if the action requires this.

        Forget a session that is over.
        """
        if self._sessions.get(session.id) is not session:
            do = Do.RELEASE  # another offer of the job has replaced this session
        else:
            do = self.table.on(session.id, event)
        if do is Do.RELEASE and session.acceptance is not None:
            session.acceptance.release(reason)
        self._forget_if_over(session)
        return do

    def _withdraw(self, session: LiveKitJob, reason: str) -> None:
        if session.considering is not None:
            session.considering.cancel()
        if session.acceptance is not None:
            session.acceptance.release(reason)
        self._forget_if_over(session)

    def _forget_if_over(self, session: LiveKitJob) -> None:
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


def _unstarted(session: LiveKitJob, handle: JobHandle, error: GreenroomError) -> tuple[JobStatus, str]:
    if session.terminated:
        return "success", ""  # the server itself counts the job as a success
    return status_of(handle.report) if handle.report is not None else ("failed", f"not started: {error}")
