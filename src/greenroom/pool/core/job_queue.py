"""Jobs in the order of their arrival, and the one place where a job gets a process."""

from __future__ import annotations

from ...errors import GreenroomError, LaunchError, NoCapacity, RejectionReason
from ...job_labels import tidy_labels
from ..events import TurnedDown
from . import generation
from .records import Generation, Job, Pool, Process
from .state_machine import step
from .states import JobEvent, JobQueueState, JobState
from .vocabulary import Launch, Refused, Reserve

__all__ = ["accept", "candidate", "capacity_problem", "leave", "offer", "put_back", "reject", "serve"]


def accept(pool: Pool, message: Launch) -> None:
    """Accept a job, or reject it. An accepted job gets an idle process, or waits in the queue up to its timeout."""
    job = _job_of(pool, message)
    error = _reason_to_refuse(pool, job)
    _take_in(pool, job, error, JobEvent.TAKE, JobEvent.QUEUE)


def offer(pool: Pool, message: Reserve) -> None:
    """Reserve a process for an offered job. Reject the offer at once if no process can be warm in time."""
    job = _job_of(pool, message)
    error = _reason_to_refuse(pool, job)
    if error is None and candidate(pool) is None:
        error = _reason_not_to_wait(pool, job)
    is_promised = message.takes_promise and _forks_succeed(pool)
    _take_in(pool, job, error, JobEvent.HOLD, JobEvent.PROMISE if is_promised else JobEvent.OFFER)


def _take_in(pool: Pool, job: Job, error: GreenroomError | None, at_once: JobEvent, later: JobEvent) -> None:
    """Reject a job if there is an error. Otherwise give the job an idle process, or a place in the queue."""
    if error is not None:
        pool.emit(Refused(job.number, error))
        return
    pool.job_queue.jobs[job.number] = pool.job_queue.by_id[job.id] = job
    pool.is_empty = False
    process = candidate(pool)
    if process is not None:
        job.launch_type = "warm"
    step(pool, job, later if process is None else at_once, process)


def candidate(pool: Pool) -> Process | None:
    """Return the process that has been idle for longest; ``None`` without an idle process."""
    serving = pool.serving
    return next(iter(serving.idle.values()), None) if serving is not None else None


def serve(pool: Pool) -> None:
    """Give idle processes to waiting jobs: first come, first served."""
    waiting = pool.job_queue.waiting
    while waiting and (process := candidate(pool)) is not None:
        job = waiting.popleft()
        event = JobEvent.TAKE if job.state is JobState.WAITING else JobEvent.HOLD
        step(pool, job, event, process)


def put_back(pool: Pool, job: Job) -> None:
    """Put a job back into its old place in the queue. Other jobs may have lost their processes, too."""
    before = sum(1 for other in pool.job_queue.waiting if other.number < job.number)
    pool.job_queue.waiting.insert(before, job)
    pool.is_unbalanced = True


def leave(pool: Pool, job: Job) -> None:
    """Remove a job that is over."""
    if job in pool.job_queue.waiting:
        pool.job_queue.waiting.remove(job)
    del pool.job_queue.jobs[job.number], pool.job_queue.by_id[job.id]
    job.metadata = b""
    job.ask = None  # breaks a reference cycle, so that the result is freed at once
    pool.is_unbalanced = True


def _job_of(pool: Pool, message: Launch | Reserve) -> Job:
    return Job(
        number=message.number,
        id=message.job_id,
        metadata=message.metadata,
        timeout=message.timeout,
        source=message.source,
        labels=tidy_labels(message.labels),
        queued_at=pool.now,
        requested_wall=pool.wall,
        expires_at=pool.now + message.timeout,
    )


# --- rejection -----------------------------------------------------------------------------------


def capacity_problem(pool: Pool) -> RejectionReason | None:
    """Return the reason why the pool would reject a new job now; ``None`` without a reason."""
    if pool.job_queue.state is not JobQueueState.OPEN:
        return "draining"
    if len(pool.job_queue.jobs) >= pool.options.max_jobs:
        return "full"
    serving = pool.serving
    if serving is not None and not serving.idle and (serving.breaker.is_open or serving.trouble is not None):
        return "breaker_open"
    return None


def reject(pool: Pool, job: Job, reason: RejectionReason, message: str, retry_after: float) -> NoCapacity:
    """Publish the rejection of a job, and return the error for its caller."""
    pool.emit(TurnedDown(job.id, job.source, reason, message, job.labels, at=pool.wall))
    return NoCapacity(message, reason=reason, retry_after=retry_after)


def draining(pool: Pool, job: Job) -> NoCapacity:
    """Reject a job because the pool drains, and return the error for its caller."""
    return reject(pool, job, "draining", "the pool is draining and takes no more jobs", 5.0)


def _reason_to_refuse(pool: Pool, job: Job) -> GreenroomError | None:
    problem, serving = capacity_problem(pool), pool.serving
    if problem == "draining":
        return draining(pool, job)
    if problem == "full":
        most = pool.options.max_jobs
        seconds = min(max(pool.demand.session_seconds / most, 1.0), 30.0)
        return reject(pool, job, problem, f"max_jobs ({most}) is reached", seconds)
    if problem == "breaker_open" and serving is not None:
        return reject(pool, job, problem, _why_broken(serving), max(serving.breaker.wait(pool.now), 1.0))
    if job.id in pool.job_queue.by_id:
        return LaunchError(f"job id {job.id!r} is in use by a job that has not ended")
    return None


def _why_broken(serving: Generation) -> str:
    breaker = serving.breaker
    return serving.trouble or f"no process becomes warm ({breaker.failures} failures in a row): {breaker.cause}"


def _forks_succeed(pool: Pool) -> bool:
    """Return true if processes became warm lately, and none has failed since. Then the next ones are certain."""
    serving = pool.serving
    return serving is not None and serving.breaker.failures == 0 and pool.demand.refill_seconds > 0


def _reason_not_to_wait(pool: Pool, job: Job) -> GreenroomError | None:
    """Reject an offer, and return the error, if the expected wait for a process is too long."""
    expected = generation.expected_wait(pool)
    if expected is not None and expected <= job.timeout and job.timeout > 0:
        return None
    when = "no zygote can fork one" if expected is None else f"the next one is expected in {expected:.2g} s"
    message = f"no process is idle for job {job.id}, and {when}"
    return reject(pool, job, "warming", message, max(expected or 0.0, 1.0))
