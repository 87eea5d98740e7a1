"""`greenroom status`: readiness of workers for another job, and their free capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..command_exit_codes import ExitCode
from .connection import Connections, JsonOption, with_connections
from .printing import echo
from .text import as_json, facts, one_line, table

if TYPE_CHECKING:
    from .client import Client
    from .workers import Replies

__all__ = ["register"]

_Plain = dict[str, Any]
_UNKNOWN: _Plain = {"ready": None, "reason": None, "detail": None, "pressure": None}
"""Status of a worker that does not answer."""


def register(cli: typer.Typer) -> None:
    cli.command()(status)


@with_connections
async def status(connections: Connections, as_json_: JsonOption = False) -> int:
    """Show whether a job could start now, and the load of each worker. Exits with 1 if a worker is not ready."""
    async with connections.open() as workers:
        replies = await workers.ask_each(_status_of)
    if as_json_:
        echo(as_json(_as_plain(replies)))
    elif replies.are_several:
        echo(_table_of(replies))
    else:
        (_, shown), *_ = replies.answers
        echo("\n".join([_verdict(shown), *([] if shown["pressure"] is None else [_figures(shown["pressure"])])]))
    all_are_ready = all(shown["ready"] for _, shown in replies.answers)
    return replies.report_failures(ExitCode.OK if all_are_ready else ExitCode.NEGATIVE)


async def _status_of(client: Client) -> _Plain:
    from .client import Refused  # imported late: it loads the HTTP library

    ready = (await client.get("/readyz", accepted=(503,))).body
    try:
        pressure = (await client.get("/pressure")).body
    except Refused as error:
        if error.status != 503:
            raise
        pressure = None  # before the pool's start, and after its end, there is nothing to show
    return {"reason": None, "detail": None, **ready, "pressure": pressure}


def _as_plain(replies: Replies[_Plain]) -> _Plain:
    shown = dict(replies.answers)
    if not replies.are_several:
        return next(iter(shown.values()))
    return {"workers": [one | shown.get(one["worker"], _UNKNOWN) for one in replies.as_plain()]}


def _table_of(replies: Replies[_Plain]) -> str:
    head = ["WORKER", "JOBS", "IDLE", "WARMING", "REJECTED", "ROOM", "STATUS"]
    return table(head, ([worker, *_cells(shown["pressure"]), _verdict(shown)] for worker, shown in replies.answers))


def _cells(pressure: _Plain | None) -> list[object]:
    if pressure is None:
        return [None] * 5
    return [
        f"{pressure['running']} of {pressure['capacity']}",
        f"{pressure['idle']} of {pressure['idle_target']}",
        pressure["warming"],
        pressure["turned_down"]["total"],
        pressure["room"],
    ]


def _verdict(ready: dict[str, Any]) -> str:
    if ready["ready"]:
        return "ready"
    detail = f" ({ready['detail']})" if ready.get("detail") else ""
    return one_line(f"not ready: {ready['reason']}{detail}")


def _figures(pressure: dict[str, Any]) -> str:
    cost, cpus = pressure["session_mb"], pressure["session_cpus"]
    sources = ", ".join(f"{name} {source.get('state', '')}".strip() for name, source in pressure["sources"].items())
    return facts(
        [
            ("jobs", f"{pressure['running']} of {pressure['capacity']}"),
            ("idle", f"{pressure['idle']} of {pressure['idle_target']}"),
            ("warming", pressure["warming"]),
            ("rejected", _turned_down(pressure["turned_down"])),
            ("session memory", None if cost is None else f"{cost:.1f} MiB"),
            (
                "session CPU",
                None if cpus is None else f"{100 * cpus:.1f} % of a CPU, waits {pressure['cpu_wait_ms']:.2f} ms",
            ),
            ("room for", f"{pressure['room']} more jobs, by {pressure['room_limit']}"),
            ("sources", sources or None),
        ]
    )


def _turned_down(recently: dict[str, Any]) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(recently["by_reason"].items()))
    text = f"{recently['total']} in the last {recently['seconds']:.0f} s"
    return f"{text}: {counts}" if counts else text
