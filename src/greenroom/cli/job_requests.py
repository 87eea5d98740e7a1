"""Requests about jobs, which the commands and `greenroom top` share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from .client import Answer, Client

__all__ = [
    "LONGEST_POLL",
    "START_SECONDS",
    "LogLine",
    "cancel_job",
    "find_jobs",
    "follow_log",
    "in_order",
    "job_after",
    "job_path",
    "stacks_of",
]

START_SECONDS = 120.0
"""Longest wait for an answer, beyond the time that the request asks the worker to wait."""
LONGEST_POLL = 60.0
_FOLLOW_EVERY = 0.5


class LogLine(NamedTuple):
    """Line of a job's log, after some that the worker has not kept."""

    left_out: int
    """Number of lines between this line and the one before, which are not kept."""
    line: dict[str, Any]


async def job_after(client: Client, job_id: str, seconds: float) -> Any:
    """Return the job after its end, or after this number of seconds."""
    give_up = time.monotonic() + seconds
    while True:
        left = max(give_up - time.monotonic(), 0.0)
        poll = min(left, LONGEST_POLL)
        answer = await client.get(job_path(job_id), {"wait": f"{poll:.3f}"}, within=poll + START_SECONDS)
        if answer.body["state"] == "ended" or poll == left:
            return answer.body


async def follow_log(client: Client, job_id: str, after: int, *, to_end: bool) -> AsyncGenerator[LogLine, None]:
    """Yield the lines of a job's log with a number above ``after``: those of now, or all to the end of the job."""
    while True:
        answer = (await client.get(f"{job_path(job_id)}/log", {"after": str(after)})).body
        for line in answer["lines"]:
            yield LogLine(line["number"] - after - 1, line)
            after = line["number"]
        if answer["is_over"] or not to_end:
            return
        await asyncio.sleep(_FOLLOW_EVERY)


async def stacks_of(client: Client, job_id: str) -> Any:
    """Take the Python stacks of a running job, which goes on as before."""
    return (await client.post(f"{job_path(job_id)}/stack", {})).body


async def find_jobs(client: Client, query: str, limit: int) -> Answer:
    """Return the latest jobs that match the words of a search, as the API does."""
    offset = f"{time.localtime().tm_gmtoff / 60:g}"  # minutes: `at:14:05` means the reader's clock
    return await client.get("/v1/jobs", {"q": query, "limit": str(limit), "utc_offset": offset})


def in_order(jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return jobs of several workers in the order of the API: the ended ones, oldest first, and then the live ones."""
    return sorted(jobs, key=_place)


async def cancel_job(client: Client, job_id: str, reason: str) -> Answer:
    """Cancel a job. Status 202: the job is being cancelled. Status 200: the job had ended."""
    return await client.delete(job_path(job_id), {"reason": reason} if reason else None)


def job_path(job_id: str) -> str:
    """Return the path of a job in the API."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _place(job: dict[str, Any]) -> tuple[bool, float]:
    is_live = job["state"] != "ended"
    # The end of a job that was lost with its worker may be unknown.
    times = (job["accepted"],) if is_live else (job["ended"], job["started"], job["accepted"])
    return is_live, next(filter(None, times), 0.0)
