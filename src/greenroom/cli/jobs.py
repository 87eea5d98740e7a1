"""`greenroom jobs`: start, list, find, show and cancel jobs, and show their logs and stacks."""

from __future__ import annotations

import json
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..command_exit_codes import ExitCode
from ..exit_reasons import Outcome, Reason
from .connection import Connections, JsonOption, with_connections
from .job_requests import (
    LONGEST_POLL,
    START_SECONDS,
    cancel_job,
    find_jobs,
    follow_log,
    in_order,
    job_after,
    stacks_of,
)
from .metadata import read_metadata
from .printing import Failure, echo
from .reports import first_label, found_table, gap_text, job_text, line_text, on_worker, started_text
from .text import as_json, harmless, one_line, table

if TYPE_CHECKING:
    from .client import Answer, Client
    from .workers import Replies, Workers

__all__ = ["State", "register"]

State = Literal["live", "reserved", "waiting", "starting", "running", "draining", "ending", "ended"]
"""States by which the API can select jobs."""

_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
_MetadataOption = Annotated[
    str | None, typer.Option("--metadata", metavar="JSON", help="Metadata of the job, as JSON.")
]
_FileOption = Annotated[
    str | None, typer.Option("--metadata-file", metavar="FILE", help="File with the metadata; - is the standard input.")
]
_IdOption = Annotated[str | None, typer.Option("--id", metavar="ID", help="Id of the job. Default: a new id.")]
_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Longest wait for a process that is being warmed. Default: the worker's offer_timeout.",
    ),
]
_WaitFlag = Annotated[
    bool,
    typer.Option("--wait", help="Wait for the end of the job, and show its report. Exits with 1 unless it succeeded."),
]
_StateOption = Annotated[State | None, typer.Option("--state", help="Only jobs in this state; live means not ended.")]
_OutcomeOption = Annotated[Outcome | None, typer.Option("--outcome", help="Only jobs with this outcome.")]
_ReasonOption = Annotated[Reason | None, typer.Option("--reason", help="Only jobs that ended for this reason.")]
_RoomOption = Annotated[str | None, typer.Option("--room", metavar="NAME", help="Only the jobs of this LiveKit room.")]
_LabelOption = Annotated[
    str | None,
    typer.Option("--label", metavar="NAME=TEXT", help="Only jobs with this label, such as agent=greeter."),
]
_LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=2000, help="Only the latest N jobs.")]
_SecondsOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="Longest wait for the end of the job.")
]
_QueryArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="WORD...",
        help="Words that must be in the job's texts, and NAME:TEXT for labels, keys of the metadata, outcome, reason, "
        "state, source, cause, at, since and until, such as caller:+1555* since:2h at:14:05.",
    ),
]
_FollowFlag = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")]
_WhyOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason, for the job, its report and the log.")
]


def register(cli: typer.Typer) -> None:
    jobs = typer.Typer(help="Start, list, find, show and cancel the jobs of workers, and show their logs and stacks.")
    jobs.command("run")(run)
    jobs.command("list")(list_jobs)
    jobs.command("find")(find)
    jobs.command("show")(show)
    jobs.command("logs")(logs)
    jobs.command("stack")(stack)
    jobs.command("cancel")(cancel)
    cli.add_typer(jobs, name="jobs")


@with_connections
async def run(
    connections: Connections,
    metadata: _MetadataOption = None,
    metadata_file: _FileOption = None,
    id: _IdOption = None,
    timeout: _TimeoutOption = None,
    wait: _WaitFlag = False,
    as_json_: JsonOption = False,
) -> int:
    """Start a job, on the first worker that takes it. Returns when a process has acknowledged the job.

    Exits with 1 if the job was rejected.
    """
    from .starting import start_job  # imported late: it loads the HTTP library

    body: dict[str, Any] = {"metadata": read_metadata(metadata, metadata_file), "id": id, "timeout": timeout}
    body = {name: value for name, value in body.items() if value is not None}
    async with connections.open() as workers:
        client, job = await start_job(
            workers, body, START_SECONDS + (timeout or 0.0), lambda line: echo(line, err=True)
        )
        started = workers.marked(client, job)
        if not wait:
            echo(as_json(started) if as_json_ else started_text(started))
            return ExitCode.OK
        echo(started_text(started), err=True)
        job = workers.marked(client, await _end_of(client, job["id"]))
    echo(as_json(job) if as_json_ else job_text(job))
    return ExitCode.OK if job["outcome"] == "succeeded" else ExitCode.NEGATIVE


@with_connections
async def list_jobs(
    connections: Connections,
    state: _StateOption = None,
    outcome: _OutcomeOption = None,
    reason: _ReasonOption = None,
    room: _RoomOption = None,
    label: _LabelOption = None,
    limit: _LimitOption = 2000,
    as_json_: JsonOption = False,
) -> int:
    """List all live jobs, and the latest 1,000 that have ended, with the oldest first."""
    wanted = {"state": state, "outcome": outcome, "reason": reason, "label": _wanted_label(room, label)}
    wanted["limit"] = str(limit)
    query = {name: value for name, value in wanted.items() if value is not None}
    async with connections.open() as workers:
        replies = await workers.ask_each(lambda client: client.get("/v1/jobs", query))
    jobs = _jobs_in(replies, limit)
    echo(as_json(replies.with_workers({"jobs": jobs})) if as_json_ else _table_of(jobs, replies.are_several))
    return replies.report_failures()


@with_connections
async def find(
    connections: Connections, query: _QueryArgument, limit: _LimitOption = 100, as_json_: JsonOption = False
) -> int:
    """Find jobs by caller, room, outcome or any other of their texts. Exits with 1 if there is none."""
    words = " ".join(f'"{word}"' for word in query)
    async with connections.open() as workers:
        replies = await workers.ask_each(lambda client: find_jobs(client, words, limit))
    jobs = _jobs_in(replies, limit)
    if as_json_:
        echo(as_json(replies.with_workers({"jobs": jobs})))
    elif jobs:
        echo(found_table(jobs, time.time(), names_workers=replies.are_several))
    else:
        echo("no job matches", err=True)
    return replies.report_failures(ExitCode.OK if jobs else ExitCode.NEGATIVE)


@with_connections
async def logs(
    connections: Connections, job_id: _IdArgument, follow: _FollowFlag = False, as_json_: JsonOption = False
) -> int:
    """Show the log of a job: its first 100 lines, and its last 400."""
    async with connections.open() as workers:
        client = await _client_of(workers, job_id)
        async with aclosing(follow_log(client, job_id, 0, to_end=follow)) as lines:
            async for left_out, line in lines:
                if left_out:
                    echo(gap_text(left_out), err=True)
                echo(json.dumps(workers.marked(client, line)) if as_json_ else line_text(line))
    return ExitCode.OK


def _jobs_in(replies: Replies[Answer], limit: int) -> list[dict[str, Any]]:
    """Return the jobs in the answers. Those of several workers are put in order, and only the latest are kept."""
    jobs = replies.rows(lambda answer: answer.body["jobs"])
    return in_order(jobs)[-limit:] if replies.are_several else jobs


def _table_of(jobs: list[dict[str, Any]], names_workers: bool) -> str:
    columns = ["id", "state", "pid", "launch_type", "start_ms", "outcome", "reason"]
    head = ["ID", "STATE", "PID", "LAUNCH", "START MS", "OUTCOME", "REASON"]
    if names_workers:
        columns, head = ["worker", *columns], ["WORKER", *head]
    rows = [[job[column] for column in columns] for job in jobs]
    labels = [first_label(job) for job in jobs]
    if not any(labels):
        return table(head, rows)
    return table([*head, "LABEL"], ([*row, label] for row, label in zip(rows, labels, strict=True)))


async def _client_of(workers: Workers, job_id: str) -> Client:
    from .job_lookup import client_of_job  # imported late: it loads the HTTP library

    return await client_of_job(workers, job_id)


def _wanted_label(room: str | None, label: str | None) -> str | None:
    """Return the label that jobs must have, or ``None``. Raises ``BadParameter`` for an invalid label, or for two."""
    if room is not None and label is not None:
        raise typer.BadParameter("--room NAME is short for --label room=NAME: give one of them")
    if label is not None and label.find("=") < 1:
        raise typer.BadParameter(f"--label is {label!r}; it must be NAME=TEXT, such as room=hall")
    return label if room is None else f"room={room}"


@with_connections
async def show(
    connections: Connections, job_id: _IdArgument, wait: _SecondsOption = 0.0, as_json_: JsonOption = False
) -> int:
    """Show the state of a job. After its end, show its report with traceback and stacks."""
    async with connections.open() as workers:
        client = await _client_of(workers, job_id)
        job = workers.marked(client, await job_after(client, job_id, wait))
    echo(as_json(job) if as_json_ else job_text(job))
    return ExitCode.OK


@with_connections
async def stack(connections: Connections, job_id: _IdArgument, as_json_: JsonOption = False) -> int:
    """Show the Python stacks of a running job. The job goes on as before, also if its event loop is blocked."""
    async with connections.open() as workers:
        client = await _client_of(workers, job_id)
        answer = workers.marked(client, await stacks_of(client, job_id))
    echo(as_json(answer) if as_json_ else harmless(answer["stacks"].rstrip("\n")))
    return ExitCode.OK


@with_connections
async def cancel(
    connections: Connections, job_id: _IdArgument, reason: _WhyOption = "", as_json_: JsonOption = False
) -> int:
    """Cancel a job: ask it to end, and kill it if that takes too long. Exits with 1 if the job had already ended."""
    async with connections.open() as workers:
        client = await _client_of(workers, job_id)
        answer = await cancel_job(client, job_id, reason)
        job, had_ended = workers.marked(client, answer.body), answer.status == 200
    if as_json_:
        echo(as_json(job))
    elif had_ended:
        echo(f"job {one_line(job_id)} had already ended{on_worker(job)}: {job['outcome']}, {job['reason']}")
    else:
        echo(f"job {one_line(job_id)} is being cancelled{on_worker(job)}")
    return ExitCode.NEGATIVE if had_ended else ExitCode.OK


# --- waiting -------------------------------------------------------------------------------------


async def _end_of(client: Client, job_id: str) -> Any:
    try:
        while (job := await job_after(client, job_id, LONGEST_POLL))["state"] != "ended":
            pass
    except Failure as error:
        message = f"job {job_id} was started, but its result is unknown: {error}"
        raise Failure(message, error.code) from error
    return job
