"""`greenroom jobs`: start, list, show and cancel jobs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import msgspec
import typer

from ..command_exit_codes import ExitCode
from ..errors import OptionError
from ..exit_reasons import Outcome, Reason
from .connection import Connection, JsonOption, with_connection
from .printing import Failure, echo
from .reports import first_label, job_text, started_text
from .text import as_json, one_line, table

if TYPE_CHECKING:
    from .client import Client

__all__ = ["State", "read_metadata", "register"]

State = Literal["live", "reserved", "waiting", "starting", "running", "draining", "ending", "ended"]
"""States by which the API can select jobs."""

_LONGEST_POLL = 60.0
_START_SECONDS = 120.0
"""Longest wait for the answer to a start, beyond the time that the job may wait for a process."""

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
_WhyOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason, for the job, its report and the log.")
]


def register(cli: typer.Typer) -> None:
    jobs = typer.Typer(help="Start, list, show and cancel the jobs of a worker.")
    jobs.command("run")(run)
    jobs.command("list")(list_jobs)
    jobs.command("show")(show)
    jobs.command("cancel")(cancel)
    cli.add_typer(jobs, name="jobs")


@with_connection
async def run(
    connection: Connection,
    metadata: _MetadataOption = None,
    metadata_file: _FileOption = None,
    id: _IdOption = None,
    timeout: _TimeoutOption = None,
    wait: _WaitFlag = False,
    as_json_: JsonOption = False,
) -> int:
    """Start a job. Returns when a process has acknowledged the job. Exits with 1 if the job was rejected."""
    body: dict[str, Any] = {"metadata": read_metadata(metadata, metadata_file), "id": id, "timeout": timeout}
    body = {name: value for name, value in body.items() if value is not None}
    async with connection.open() as client:
        started = (await client.post("/v1/jobs", body, within=_START_SECONDS + (timeout or 0.0))).body
        if not wait:
            echo(as_json(started) if as_json_ else started_text(started))
            return ExitCode.OK
        echo(started_text(started), err=True)
        job = await _end_of(client, started["id"])
    echo(as_json(job) if as_json_ else job_text(job))
    return ExitCode.OK if job["outcome"] == "succeeded" else ExitCode.NEGATIVE


@with_connection
async def list_jobs(
    connection: Connection,
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
    async with connection.open() as client:
        answer = (await client.get("/v1/jobs", query)).body
    if as_json_:
        echo(as_json(answer))
        return ExitCode.OK
    echo(_table_of(answer["jobs"]))
    return ExitCode.OK


def _table_of(jobs: list[dict[str, Any]]) -> str:
    columns = ("id", "state", "pid", "launch_type", "start_ms", "outcome", "reason")
    head = ["ID", "STATE", "PID", "LAUNCH", "START MS", "OUTCOME", "REASON"]
    rows = [[job[column] for column in columns] for job in jobs]
    labels = [first_label(job) for job in jobs]
    if not any(labels):
        return table(head, rows)
    return table([*head, "LABEL"], ([*row, label] for row, label in zip(rows, labels, strict=True)))


def _wanted_label(room: str | None, label: str | None) -> str | None:
    """Return the label that jobs must have, or ``None``. Raises ``BadParameter`` for an invalid label, or for two."""
    if room is not None and label is not None:
        raise typer.BadParameter("--room NAME is short for --label room=NAME: give one of them")
    if label is not None and label.find("=") < 1:
        raise typer.BadParameter(f"--label is {label!r}; it must be NAME=TEXT, such as room=hall")
    return label if room is None else f"room={room}"


@with_connection
async def show(
    connection: Connection, job_id: _IdArgument, wait: _SecondsOption = 0.0, as_json_: JsonOption = False
) -> int:
    """Show the state of a job. After its end, show its report with traceback and stacks."""
    async with connection.open() as client:
        job = await _awaited(client, job_id, wait)
    echo(as_json(job) if as_json_ else job_text(job))
    return ExitCode.OK


@with_connection
async def cancel(
    connection: Connection, job_id: _IdArgument, reason: _WhyOption = "", as_json_: JsonOption = False
) -> int:
    """Cancel a job: ask it to end, and kill it if that takes too long. Exits with 1 if the job had already ended."""
    async with connection.open() as client:
        answer = await client.delete(_path(job_id), {"reason": reason} if reason else None)
    job, had_ended = answer.body, answer.status == 200
    if as_json_:
        echo(as_json(job))
    elif had_ended:
        echo(f"job {one_line(job_id)} had already ended: {job['outcome']}, {job['reason']}")
    else:
        echo(f"job {one_line(job_id)} is being cancelled")
    return ExitCode.NEGATIVE if had_ended else ExitCode.OK


# --- waiting -------------------------------------------------------------------------------------


async def _end_of(client: Client, job_id: str) -> Any:
    try:
        while (job := await _awaited(client, job_id, _LONGEST_POLL))["report"] is None:
            pass
    except Failure as error:
        message = f"job {job_id} was started, but its result is unknown: {error}"
        raise Failure(message, error.code) from error
    return job


async def _awaited(client: Client, job_id: str, seconds: float) -> Any:
    """Return the job after its end, or after this number of seconds."""
    give_up = time.monotonic() + seconds
    while True:
        left = max(give_up - time.monotonic(), 0.0)
        poll = min(left, _LONGEST_POLL)
        answer = await client.get(_path(job_id), {"wait": f"{poll:.3f}"}, within=poll + _START_SECONDS)
        if answer.body["report"] is not None or poll == left:
            return answer.body


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def read_metadata(text: str | None, file: str | None) -> Any:
    """Return the metadata unchanged, after a check that it is JSON. Numbers stay as they are written.

    Raises ``OptionError`` for metadata that is not JSON, and for a file that cannot be read.
    """
    if text is not None and file is not None:
        raise OptionError("--metadata and --metadata-file exclude each other")
    if text is None and file is None:
        return None
    origin = "--metadata" if file is None else "the standard input" if file == "-" else file
    try:
        raw = _read(file) if file is not None else str(text).encode("utf-8", "strict")
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = f". A JSON string needs quotes: {json.dumps(text)!r}" if text is not None else ""
        raise OptionError(f"{origin} is not JSON: {error}{hint}") from None
    except RecursionError:
        raise OptionError(f"{origin} is nested too deeply") from None
    return msgspec.Raw(raw)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise OptionError(f"the metadata file {file} cannot be read: {error.strerror}") from None
