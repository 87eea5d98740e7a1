"""`greenroom status`: readiness of a worker for another job, and its free capacity."""

from __future__ import annotations

from typing import Any

import typer

from ..command_exit_codes import ExitCode
from .connection import Connection, JsonOption, with_connection
from .printing import echo
from .text import as_json, facts, one_line

__all__ = ["register"]


def register(cli: typer.Typer) -> None:
    cli.command()(status)


@with_connection
async def status(connection: Connection, as_json_: JsonOption = False) -> int:
    """Show whether a job could start now, and the load of the worker. Exits with 1 if the worker is not ready."""
    from .client import Refused  # imported late: it loads the HTTP library

    async with connection.open() as client:
        ready = (await client.get("/readyz", accepted=(503,))).body
        try:
            pressure = (await client.get("/pressure")).body
        except Refused as error:
            if error.status != 503:
                raise
            pressure = None  # before the pool's start, and after its end, there is nothing to show
    if as_json_:
        echo(as_json({"reason": None, "detail": None, **ready, "pressure": pressure}))
    else:
        echo("\n".join([_verdict(ready), *([] if pressure is None else [_figures(pressure)])]))
    return ExitCode.OK if ready["ready"] else ExitCode.NEGATIVE


def _verdict(ready: dict[str, Any]) -> str:
    if ready["ready"]:
        return "ready"
    detail = f" ({ready['detail']})" if ready.get("detail") else ""
    return one_line(f"not ready: {ready['reason']}{detail}")


def _figures(pressure: dict[str, Any]) -> str:
    cost = pressure["session_mb"]
    sources = ", ".join(f"{name} {source.get('state', '')}".strip() for name, source in pressure["sources"].items())
    return facts(
        [
            ("jobs", f"{pressure['running']} of {pressure['capacity']}"),
            ("idle", f"{pressure['idle']} of {pressure['idle_target']}"),
            ("warming", pressure["warming"]),
            ("rejected", _turned_down(pressure["turned_down"])),
            ("session memory", None if cost is None else f"{cost:.1f} MiB"),
            ("sources", sources or None),
        ]
    )


def _turned_down(recently: dict[str, Any]) -> str:
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(recently["by_reason"].items()))
    text = f"{recently['total']} in the last {recently['seconds']:.0f} s"
    return f"{text}: {counts}" if counts else text
