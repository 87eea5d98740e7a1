"""Start of a job on the first of several workers that takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..command_exit_codes import ExitCode
from .client import Client, Refused, Unreachable
from .printing import Failure
from .workers import Workers

__all__ = ["start_job"]


async def start_job(
    workers: Workers, body: Mapping[str, Any], seconds: float, report: Callable[[str], None]
) -> tuple[Client, dict[str, Any]]:
    """Start a job on the first worker that takes it. Return the client of that worker, and the job.

    ``seconds`` is the longest wait for the answer of one worker. ``report`` gets a line for each worker that did not
    take the job. The next worker is asked only if the job surely does not run. Raises :class:`Failure` otherwise, and
    if no worker takes the job.
    """
    codes: list[ExitCode] = []
    for client in workers.clients:
        try:
            started: dict[str, Any] = (await client.post("/v1/jobs", body, within=seconds)).body
            return client, started
        except Failure as failure:
            if not workers.are_several:
                raise
            if not _surely_does_not_run(failure):
                raise Failure(f"{workers.name_of(client)}: {failure}{_hint(failure)}", failure.code) from failure
            report(f"{workers.name_of(client)}: {failure.brief}")
            codes.append(failure.code)
    code = codes[0] if len(set(codes)) == 1 else ExitCode.NEGATIVE
    raise Failure(f"the job was not started: none of {len(workers.clients)} workers has taken it", code)


def _surely_does_not_run(failure: Failure) -> bool:
    """Return whether a job that failed to start does not run, and will not.

    A worker that answers 503 promises that. Without a connection, no worker has got the request. A connection that
    broke later tells nothing: the worker may have started the job before.
    """
    if isinstance(failure, Refused):
        return failure.status == 503
    return isinstance(failure, Unreachable) and not failure.was_sent


def _hint(failure: Failure) -> str:
    if isinstance(failure, Unreachable):
        return ". The job may have been started there, so no other worker is asked"
    return ""
