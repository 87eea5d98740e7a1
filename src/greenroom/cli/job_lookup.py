"""Lookup of the worker that has a job, among several workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .client import Client, Refused
from .job_requests import job_path
from .printing import Failure
from .workers import Workers, joint_failure

__all__ = ["client_of_job"]

_LOST, _ELSEWHERE = 410, 421
_UNKNOWN = (404, _LOST, _ELSEWHERE)
"""Statuses of a worker that does not have the job."""
_PATIENCE = 2.0
"""Seconds for the other workers to answer, once one has the job: clients can give two jobs the same id."""


async def client_of_job(workers: Workers, job_id: str) -> Client:
    """Return the client of the worker that has a job. Several workers are all asked, and one alone is not.

    Raises :class:`Failure` if no worker has the job, or if more than one has a job with this id.
    """
    if not workers.are_several:
        return workers.clients[0]
    replies = await _ask(workers, job_id)
    holders = [client for client, failure in replies.items() if failure is None]
    if len(holders) == 1:
        return holders[0]
    if not holders:
        raise _nowhere(workers, job_id, {client: failure for client, failure in replies.items() if failure})
    named = ", ".join(f"{workers.name_of(client)} ({client.url})" for client in holders)
    raise Failure(f"{len(holders)} workers have a job {job_id!r}: {named}. Name one of them with --url")


async def _ask(workers: Workers, job_id: str) -> dict[Client, Failure | None]:
    """Ask all workers for a job. The value is ``None`` for a worker that has the job.

    Workers whose answers are not needed any more are left out: the name in the id tells which worker has made it.
    """
    loop = asyncio.get_running_loop()
    tasks = {loop.create_task(_failure_of(client, job_id)): client for client in workers.clients}
    replies: dict[Client, Failure | None] = {}
    pending, give_up = set(tasks), float("inf")
    try:
        while pending:
            left = None if give_up == float("inf") else max(give_up - loop.time(), 0.0)
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                client = tasks[task]
                replies[client] = task.result()
                if replies[client] is None and client.worker == _worker_in(job_id):
                    return {client: None}
            if None in replies.values():
                give_up = min(give_up, loop.time() + _PATIENCE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {client: replies[client] for client in workers.clients if client in replies}


async def _failure_of(client: Client, job_id: str) -> Failure | None:
    """Return ``None`` if a worker has a job, else its refusal, or the reason why it has not answered."""
    try:
        status = await client.head(job_path(job_id))
        if status >= 300 or client.worker is None:
            await client.get(job_path(job_id))  # the answer to HEAD has no body, and so does not say why
    except Failure as failure:
        return failure
    return None


def _nowhere(workers: Workers, job_id: str, failures: Mapping[Client, Failure]) -> Failure:
    """Return the failure for a job that no worker has, with the workers that gave no answer."""
    statuses = {client: failure.status for client, failure in failures.items() if isinstance(failure, Refused)}
    silent = [
        (workers.name_of(client), one) for client, one in failures.items() if statuses.get(client) not in _UNKNOWN
    ]
    if len(silent) == len(failures):
        return joint_failure(silent)
    lost = [client for client, status in statuses.items() if status == _LOST]
    if lost:
        name = workers.name_of(lost[0])
        text = f"job {job_id!r} is lost: an earlier start of worker {name} had made it, and has ended with all its jobs"
    elif _ELSEWHERE in statuses.values():
        name = _worker_in(job_id)
        remedy = "may be one without an answer" if silent else "is none of these. Add its address with --url"
        text = f"job {job_id!r} belongs to worker {name!r}, which {remedy}"
    else:
        which = "worker that answered" if silent else "worker"
        text = f"no {which} has a job {job_id!r}, or its report is no longer kept"
    if lost or not silent:
        return Failure(text)
    return joint_failure(silent, text)


def _worker_in(job_id: str) -> str:
    """Return the name of the worker in an id of the form ``NAME.START.RANDOM``."""
    return job_id.partition(".")[0]
