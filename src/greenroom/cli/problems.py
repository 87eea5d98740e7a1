"""`greenroom problems`: what has gone wrong on workers, and which calls it concerned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from ..exit_reasons import is_expected
from .connection import Connections, JsonOption, with_connections
from .printing import echo
from .reports import who_text
from .text import as_json, duration, harmless, moment, one_line

if TYPE_CHECKING:
    from .client import Client
    from .workers import Replies

__all__ = ["problems_of", "problems_text", "register"]

_SINCE = "24h"
_MOST = "2000"
_SHOWN = 3
"""Latest calls of each kind that are shown. ``--json`` shows all."""

_Plain = Mapping[str, Any]


def register(cli: typer.Typer) -> None:
    cli.command()(problems)


@with_connections
async def problems(connections: Connections, as_json_: JsonOption = False) -> int:
    """Show what went wrong in the last 24 hours: the worker itself, stuck calls, failures by cause, and rejections."""
    async with connections.open() as workers:
        replies = await workers.ask_each(_ask)
    board, ended = _merged(replies)
    found = problems_of(board, ended)
    echo(as_json(replies.with_workers(found)) if as_json_ else problems_text(found, time.time()))
    return replies.report_failures()


async def _ask(client: Client) -> tuple[_Plain, list[_Plain]]:
    """Return the picture of a worker, and the jobs that have ended."""
    board = (await client.get("/v1/board")).body
    query = {"q": f"state:ended since:{_SINCE}", "limit": _MOST}
    return board, (await client.get("/v1/jobs", query)).body["jobs"]


def _merged(replies: Replies[tuple[_Plain, list[_Plain]]]) -> tuple[_Plain, list[dict[str, Any]]]:
    """Return the pictures of all workers as one, and the jobs of all."""

    def rows(name: str) -> list[dict[str, Any]]:
        return replies.rows(lambda answer: answer[0][name])

    board: dict[str, Any] = {
        name: sorted(rows(name), key=lambda one: float(one["at"])) for name in ("incidents", "reports", "turned_down")
    }
    return board | {"sessions": rows("sessions")}, replies.rows(lambda answer: answer[1])


def problems_of(board: _Plain, ended: Iterable[_Plain]) -> dict[str, list[Any]]:
    """Return the problems in the picture of a worker and among the jobs that have ended, as plain data."""
    return {
        "worker": [one for one in board["incidents"] if one["is_bad"]],
        "stuck": [job for job in board["sessions"] if job["is_stuck"]],
        "failures": _grouped(_failures(board, ended), lambda one: one["cause"]),
        "rejected": _grouped(board["turned_down"], lambda one: f"{one['reason']} ({one['source']})"),
    }


def _failures(board: _Plain, ended: Iterable[_Plain]) -> list[_Plain]:
    """Return ends of calls, and of processes without a call, that need attention; oldest first."""
    jobs = [{**job, "at": job["ended"], "job_id": job["id"]} for job in ended if _needs_attention(job)]
    processes = [report for report in board["reports"] if report["job_id"] is None]
    return sorted([*jobs, *processes], key=lambda one: float(one["at"]))


def _needs_attention(job: _Plain) -> bool:
    if job["ended"] is None:
        return False
    return job["reason"] is None or not is_expected(job["outcome"], job["reason"], had_job=True)


def _grouped(items: Iterable[_Plain], kind_of: Callable[[_Plain], str]) -> list[dict[str, Any]]:
    """Return the items of each kind with their number, and the times of the first and the last. The latest is last."""
    groups: dict[str, list[_Plain]] = {}
    for item in items:
        kind = kind_of(item)
        group = groups.pop(kind, [])
        group.append(item)
        groups[kind] = group
    return [
        {"kind": kind, "count": len(group), "first": group[0]["at"], "last": group[-1]["at"], "latest": group}
        for kind, group in groups.items()
    ]


def problems_text(found: Mapping[str, list[_Plain]], now: float) -> str:
    """Return the problems as lines, with the latest last. Each line about a call has its id, and who it is."""
    parts = {
        "worker": [f"{_begin(one['at'], one)}{one['kind']}: {_indented(one['cause'])}" for one in found["worker"]],
        "stuck": [_stuck_line(job, now) for job in found["stuck"]],
        "failures": list(_group_lines(found["failures"])),
        "rejected": list(_group_lines(found["rejected"])),
    }
    lines = [f"{name}\n" + "\n".join(f"  {line}" for line in part) for name, part in parts.items() if part]
    return "\n".join(lines) or "no problems"


def _stuck_line(job: _Plain, now: float) -> str:
    age = job["beat_age"]
    stands = f"its event loop stands still for {duration(age)} (greenroom jobs stack {job['id']})"
    return f"{_begin(now - age, job)}{_subject(job)}: {one_line(stands)}"


def _begin(at: float, one: _Plain) -> str:
    """Return the beginning of a line: the time, and the worker if several were asked."""
    return f"{moment(at)}  {one_line(one['worker'])}  " if "worker" in one else f"{moment(at)}  "


def _group_lines(groups: Iterable[_Plain]) -> Iterator[str]:
    for group in groups:
        since = "" if group["count"] == 1 else f", since {moment(group['first'])}"
        yield f"{group['count']}x {one_line(group['kind'])}{since}"
        for one in group["latest"][-_SHOWN:]:
            yield f"  {_begin(one['at'], one)}{_subject(one)}: {_indented(one['detail'])}"


def _subject(one: _Plain) -> str:
    """Return the call, and who it is; or the process, if it had no call."""
    job_id = one.get("job_id") or one.get("id")
    name = f"process {one['process_id']}" if job_id is None else f"job {job_id}"
    return one_line(" ".join(filter(None, (name, who_text(one)))))


def _indented(text: str) -> str:
    # Indented, so that no part of a text can look like another line.
    return harmless(text.rstrip("\n")).replace("\n", "\n        ")
