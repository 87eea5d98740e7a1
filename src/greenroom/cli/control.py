"""`greenroom drain`, `reload` and `resize`: control of a running worker by an operator."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..exit_codes import ExitCode
from .connection import Connection, JsonOption, with_connection
from .printing import tell
from .text import as_json, one_line

__all__ = ["register"]

_RELOAD_SECONDS = 600.0

_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long accepted jobs may go on; by default the worker's drain_timeout.",
    ),
]
_WaitFlag = Annotated[
    bool, typer.Option("--wait", help="Return when the worker has ended; exits with 1 if the drain cut jobs short.")
]
_WithinOption = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=1, help="How long the new code may take to load and warm up."),
]
_IdleArgument = Annotated[int, typer.Argument(metavar="N", min=0, help="How many processes are to be idle.")]
_MaxOption = Annotated[
    int | None,
    typer.Option("--max", metavar="M", min=0, help="How many may be; without it, as many as before, or N if more."),
]


def register(cli: typer.Typer) -> None:
    cli.command()(drain)
    cli.command()(reload)
    cli.command()(resize)


@with_connection
async def drain(
    connection: Connection, timeout: _TimeoutOption = None, wait: _WaitFlag = False, as_json_: JsonOption = False
) -> int:
    """Drain a worker, as SIGTERM does: the worker takes no more jobs, and ends after its last job."""
    from .draining import drain_and_wait, start_to_drain  # imported late: it loads the HTTP library

    async with connection.open() as client:
        if not wait:
            started = await start_to_drain(client, timeout)
            tell(as_json(started) if as_json_ else _draining(started))
            return ExitCode.OK
        end = await drain_and_wait(client, timeout, lambda text: tell(text, err=True))
    if as_json_:
        tell(as_json({**end.started, "cut_short": end.cut_short}))
    else:
        cut = ", ".join(map(one_line, end.cut_short))
        tell(f"the worker has ended; cut short: {cut}" if cut else "the worker has ended, after its last job")
    return ExitCode.NEGATIVE if end.cut_short else ExitCode.OK


@with_connection
async def reload(connection: Connection, timeout: _WithinOption = _RELOAD_SECONDS, as_json_: JsonOption = False) -> int:
    """Load the code again and serve from it. Exits with 1 and the cause if that fails; the old code then goes on."""
    async with connection.open() as client:
        reloaded = (await client.post("/v1/pool/reload", {}, within=timeout)).body
    tell(as_json(reloaded) if as_json_ else f"generation {reloaded['generation']} serves from now on")
    return ExitCode.OK


@with_connection
async def resize(
    connection: Connection, n: _IdleArgument, max_idle: _MaxOption = None, as_json_: JsonOption = False
) -> int:
    """Hold N idle processes from now on. After its next start, the worker uses its settings again."""
    order = {"num_idle_processes": n} | ({} if max_idle is None else {"max_idle_processes": max_idle})
    async with connection.open() as client:
        resized = (await client.post("/v1/pool/resize", order)).body
    text = "{num_idle_processes} processes are to be idle, and at the most {max_idle_processes} may be"
    tell(as_json(resized) if as_json_ else text.format(**resized))
    return ExitCode.OK


def _draining(started: dict[str, Any]) -> str:
    return f"draining: {started['jobs']} jobs may go on for {started['timeout']:g} s, then the worker ends"
