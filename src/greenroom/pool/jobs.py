"""The accepted jobs of a pool, on their way from the offer to a process and to their report.

Nothing here waits: every method runs within one turn of the event loop, so a process that is claimed
is claimed by one job, and no job's life delays another's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from ..errors import GreenroomError, LaunchError, NoCapacity
from ..report import ExitReport, Timings
from ..wire.messages import Answer
from .clock import wall_time
from .events import ClaimFailed, JobAccepted, JobEnded, JobStarted, Released, TurnedDown
from .exits import Decision
from .labels import Labels
from .launch import Launch
from .process import Process
from .states import State

if TYPE_CHECKING:
    from .fleet import Fleet

__all__ = ["Jobs"]

MAX_ATTEMPTS = 3
"""How many processes a job is tried on, one after the other, if none acknowledges it."""
SHORTEST_START = 0.05
"""Seconds that a process has to acknowledge a job, however late it comes."""


class Jobs:
    """Every job that was accepted and has not ended, and those that a process is kept for."""

    def __init__(self, fleet: Fleet) -> None:
        self.live: dict[str, Launch] = {}
        self.waiting: deque[Launch] = deque()
        self._fleet = fleet
        self._clock = fleet.clock
        self._events = fleet.services.events

    def __len__(self) -> int:
        return len(self.live)

    # --- taking them on --------------------------------------------------------------------------

    def accept(self, job_id: str, metadata: bytes, timeout: float, source: str, labels: Labels | None = None) -> Launch:
        """Take a job on: with an idle process if there is one, else in the queue. Or turn it down."""
        launch = Launch(job_id, metadata, self._clock.now() + timeout, source, labels)
        self._admit(launch)
        process = self._fleet.take_idle()
        self._take_on(launch, process, timeout)
        self._events.publish(JobAccepted(job_id, source, launch.launch_type, launch.labels))
        return launch

    def reserve(
        self, job_id: str, metadata: bytes, timeout: float, source: str, labels: Labels | None = None
    ) -> Launch:
        """Keep a process for a job that is offered; or turn it down, at once if none can be there in time."""
        launch = Launch(job_id, metadata, self._clock.now() + timeout, source, labels)
        self._admit(launch)
        process = self._fleet.take_idle()
        if process is None:
            self._admit_to_queue(launch, timeout)
        launch.is_held = True
        self._take_on(launch, process, timeout)
        return launch

    def _take_on(self, launch: Launch, process: Process | None, timeout: float) -> None:
        if process is not None:
            launch.launch_type = "warm"
            self._assign(process, launch)  # before all bookkeeping: the session starts while that is done
        if not launch.is_held or process is None:
            launch.expiry = self._clock.call_later(timeout, self._expire, launch)
        self.live[launch.job_id] = launch
        self._fleet.empty.clear()
        if not launch.is_held:
            self._fleet.demand.claimed(self._clock.now())
        if process is not None:
            self._fleet.balance_soon()
        else:
            self.waiting.append(launch)
            self._fleet.balance()

    def order(self, launch: Launch, metadata: bytes | None, timeout: float) -> None:
        """The order to start a job that a process was kept for. Raises :class:`LaunchError` if it is none any more."""
        if not launch.is_held:
            why = "" if launch.given_up is None else f" ({launch.given_up})"
            raise LaunchError(f"job {launch.job_id} cannot be started: its process is not reserved any more{why}")
        if launch.is_being_asked:
            raise LaunchError(f"job {launch.job_id} cannot be started: the app has not answered whether it takes it")
        launch.is_held = False
        if metadata is not None:
            launch.metadata = metadata
        launch.requested_at = time.monotonic()
        self._expire_in(launch, timeout)
        if launch.process is not None and launch.process.state is State.RESERVED:
            self._claim(launch.process, launch)
        # Else its process has died, or is about to: then it waits in the queue, or soon will.
        self._fleet.demand.claimed(self._clock.now())  # not before: of what was only offered, nothing may come
        self._fleet.balance_soon()
        self._events.publish(JobAccepted(launch.job_id, launch.source, launch.launch_type, launch.labels))

    def ask(self, launch: Launch, timeout: float) -> asyncio.Future[tuple[Answer, bytes]]:
        """Have the app say whether it takes a job that a process is kept for."""
        launch.answer = asyncio.get_running_loop().create_future()
        if launch.process is not None and launch.process.state is State.RESERVED:
            launch.process.ask(launch, timeout)
        else:
            self.answered(launch, _refusal(launch, "the process that was kept for it has ended"), b"")
        return launch.answer

    def answered(self, launch: Launch, answer: Answer, body: bytes) -> None:
        """The app has spoken. Turned down, it is over in this moment, and not when whoever asked comes to hear it."""
        launch.answered(answer, body)
        if not answer.accepted:
            self.release(launch, _not_started(launch, f"the app turned it down: {answer.reason}"))

    def release(self, launch: Launch, error: GreenroomError, *, expired: bool = False) -> None:
        """Nothing comes of what was offered. The process that was kept for it is idle again."""
        if not launch.is_held:
            return
        process, launch.process = launch.process, None
        self._events.publish(_released(launch, process, str(error), expired=expired))
        if launch in self.waiting:
            self.waiting.remove(launch)
        del self.live[launch.job_id]
        launch.give_up(error)
        if process is not None and process.state is State.RESERVED:
            if launch.is_being_asked:
                # The app's request function still runs in it: it cannot be offered to anybody else.
                process.stop(Decision("cancelled", f"job {launch.job_id} was withdrawn while the app was asked"))
            else:
                process.release()
        self._fleet.note_if_empty()

    def cancel(self, launch: Launch, decision: Decision) -> None:
        """End a job wherever it is. One that has not started will not."""
        if launch.is_held:
            self.release(launch, self._withdrawn(launch, decision))
            return
        launch.cancelled = launch.cancelled or decision
        if launch.process is not None:
            launch.process.stop(decision)
        elif launch in self.waiting:
            self.waiting.remove(launch)
            self._end_unstarted(launch, decision, _never_started(launch, decision.detail))

    def _withdrawn(self, launch: Launch, decision: Decision) -> GreenroomError:
        """What whoever offered it is told: an offer that still waits for its process is turned down."""
        if decision.reason != "drained" or launch.reserved.done():
            return _never_started(launch, decision.detail)
        return self._turned_down(launch, "draining", *self._explain("draining"))

    # --- turning them down -----------------------------------------------------------------------

    def capacity_problem(self) -> str | None:
        """Why a job would be turned down now; ``None`` if it would not."""
        fleet = self._fleet
        if fleet.is_draining or fleet.is_closing:
            return "draining"
        if len(self.live) >= fleet.options.max_jobs:
            return "full"
        if not fleet.idle and (fleet.breaker.is_open or fleet.trouble is not None):
            return "breaker_open"
        return None

    def _admit(self, launch: Launch) -> None:
        problem = self.capacity_problem()
        if problem is not None:
            raise self._turned_down(launch, problem, *self._explain(problem))
        if launch.job_id in self.live:
            raise LaunchError(f"job id {launch.job_id!r} is in use by a job that has not ended")

    def _explain(self, problem: str) -> tuple[str, float]:
        fleet = self._fleet
        if problem == "draining":
            return "the pool is draining and takes no more jobs", 5.0
        if problem == "full":
            seconds = fleet.demand.session_seconds / fleet.options.max_jobs
            return f"all {fleet.options.max_jobs} jobs are taken", min(max(seconds, 1.0), 30.0)
        failures = f"no process becomes warm ({fleet.breaker.failures} failures in a row): {fleet.breaker.cause}"
        return fleet.trouble or failures, max(fleet.breaker.wait(self._clock.now()), 1.0)

    def _admit_to_queue(self, launch: Launch, timeout: float) -> None:
        """Turn down what no process can be there for in time, by what one takes to become warm."""
        expected = self._fleet.expected_wait()
        if expected is None or expected > timeout or timeout <= 0:
            when = "there is no zygote to fork one from" if expected is None else f"the next one takes {expected:.2g} s"
            message = f"no process is idle for job {launch.job_id}, and {when}"
            raise self._turned_down(launch, "warming", message, max(expected or 0.0, 1.0))

    def _turned_down(self, launch: Launch, reason: str, message: str, retry_after: float) -> NoCapacity:
        self._events.publish(TurnedDown(launch.job_id, launch.source, reason, message, launch.labels))
        return NoCapacity(message, reason=reason, retry_after=retry_after)

    # --- the queue -------------------------------------------------------------------------------

    def serve_waiting(self) -> None:
        """First come, first served."""
        while self.waiting and (process := self._fleet.take_idle()) is not None:
            self._assign(process, self.waiting.popleft())

    def _assign(self, process: Process, launch: Launch) -> None:
        launch.process = process
        launch.attempts += 1
        if launch.is_held:
            if launch.expiry is not None:
                launch.expiry.cancel()  # its process has a deadline now
            process.reserve(launch, self._fleet.options.reservation_timeout)
            if not launch.reserved.done():
                launch.waited = time.monotonic() - launch.queued_at
                launch.reserved.set_result(None)
        else:
            self._claim(process, launch)

    def _claim(self, process: Process, launch: Launch) -> None:
        remaining = launch.expires_at - self._clock.now()
        launch.claimed_at = time.monotonic()
        process.claim(launch, min(self._fleet.options.start_timeout, max(remaining, SHORTEST_START)))

    def _put_back(self, launch: Launch) -> None:
        """Into its old place: those that came before it may have lost their processes, too."""
        before = sum(1 for other in self.waiting if other.queued_at < launch.queued_at)
        self.waiting.insert(before, launch)

    def _expire_in(self, launch: Launch, timeout: float) -> None:
        if launch.expiry is not None:
            launch.expiry.cancel()
        launch.expires_at = self._clock.now() + timeout
        launch.expiry = self._clock.call_later(timeout, self._expire, launch)

    def _expire(self, launch: Launch) -> None:
        if launch not in self.waiting:
            return  # with a process, which has a deadline of its own, no later than this
        message = f"no process became warm in time for job {launch.job_id}"
        retry_after = max(self._fleet.demand.refill_seconds, 1.0)
        error = self._turned_down(launch, "warming", message, retry_after)
        if launch.is_held:
            self.release(launch, error)
            return
        self.waiting.remove(launch)
        self._end_unstarted(launch, Decision("start_timeout", message), error)

    def reservation_overdue(self, launch: Launch) -> None:
        timeout = self._fleet.options.reservation_timeout
        message = f"job {launch.job_id} was not ordered within reservation_timeout ({timeout:g} s)"
        self.release(launch, LaunchError(message), expired=True)

    # --- what becomes of them --------------------------------------------------------------------

    def started(self, process: Process, launch: Launch) -> None:
        launch.has_started()
        claimed_at, started_at = launch.claimed_at or launch.requested_at, launch.started_at or launch.requested_at
        event = JobStarted(
            job_id=launch.job_id,
            source=launch.source,
            process_id=process.id,
            pid=process.pid,
            generation=process.generation,
            launch_type=launch.launch_type,
            start_seconds=started_at - launch.requested_at,
            queue_seconds=launch.waited + max(claimed_at - launch.requested_at, 0.0),
            labels=launch.labels,
        )
        self._events.publish(event)

    def answer_lost(self, process: Process, launch: Launch) -> None:
        """Its process ends, or has ended, while the app was asked: that is the answer."""
        if launch.is_being_asked:
            self.answered(launch, _refusal(launch, process.fate), b"")

    def lost_process(self, process: Process, launch: Launch) -> None:
        """Its process is dead and had not acknowledged it: it goes to another one, if that is still wanted."""
        self.answer_lost(process, launch)
        if launch.process is not process:
            return  # it was given up before
        if process.is_recalled:
            launch.will_not_start(_never_started(launch, process.fate))
        elif launch.cancelled is not None:
            launch.process = None
            self._end_unstarted(launch, launch.cancelled, _never_started(launch, launch.cancelled.detail))
        else:
            self._try_again(process, launch)

    def _try_again(self, process: Process, launch: Launch) -> None:
        is_in_time = launch.is_held or self._clock.now() < launch.expires_at
        is_retried = launch.attempts < MAX_ATTEMPTS and is_in_time and not self._fleet.is_closing
        if process.is_distrusted and not launch.is_held:
            is_retried = False  # its acknowledgement may be in what was not read: it must not run twice
        failed = ClaimFailed(
            launch.job_id, process.id, process.pid, launch.launch_type, process.fate, is_retried, launch.labels
        )
        self._events.publish(failed)
        if is_retried:
            launch.process = None
            if launch.is_held:
                self._expire_in(launch, self._fleet.options.reservation_timeout)
            self._put_back(launch)
            self.serve_waiting()
            self._fleet.balance()
        elif launch.is_held:
            self.release(launch, _not_started(launch, process.fate))
        elif process.is_doomed:
            launch.will_not_start(_not_started(launch, process.fate))  # now; its report takes a moment more

    def ended(self, process: Process, launch: Launch, report: ExitReport) -> None:
        """The process that has it is gone, and that is its end."""
        del self.live[launch.job_id]
        if process.acknowledged:
            self._fleet.demand.session_ended((report.timings.ended or 0.0) - (report.timings.started or 0.0))
            launch.end(report)
        else:
            launch.end(report, _not_started(launch, report.detail))
        self._events.publish(JobEnded(report, launch.source))
        self._fleet.note_if_empty()

    def _end_unstarted(self, launch: Launch, decision: Decision, error: GreenroomError) -> None:
        """End a job that no process has, or will have."""
        report = ExitReport(
            outcome="cancelled" if decision.reason in ("cancelled", "drained") else "failed",
            reason=decision.reason,
            detail=decision.detail,
            timings=Timings(requested=wall_time(launch.requested_at), ended=wall_time(time.monotonic())),
            job_id=launch.job_id,
            launch_type=launch.launch_type,
            labels=launch.labels,
        )
        del self.live[launch.job_id]
        launch.end(report, error)
        self._events.publish(JobEnded(report, launch.source))
        self._fleet.note_if_empty()


def _released(launch: Launch, process: Process | None, detail: str, *, expired: bool) -> Released:
    return Released(
        job_id=launch.job_id,
        source=launch.source,
        process_id=process.id if process else None,
        pid=process.pid if process else None,
        generation=process.generation if process else None,
        detail=detail,
        expired=expired,
        labels=launch.labels,
    )


def _refusal(launch: Launch, reason: str) -> Answer:
    return Answer(launch.job_id, False, reason, False)


def _not_started(launch: Launch, cause: str) -> LaunchError:
    return LaunchError(f"job {launch.job_id} did not start: {cause}")


def _never_started(launch: Launch, cause: str) -> LaunchError:
    return LaunchError(f"job {launch.job_id} never started: {cause}")
