"""`greenroom drain`, `reload` and `resize`: control of a running worker by an operator."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..command_exit_codes import ExitCode
from .connection import Connection, JsonOption, with_connection
from .printing import echo
from .text import as_json, one_line

__all__ = ["register"]

_RELOAD_SECONDS = 600.0

_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Longest time that accepted jobs may go on. Default: the worker's drain_timeout.",
    ),
]
_WaitFlag = Annotated[
    bool, typer.Option("--wait", help="Wait until the worker has ended. Exits with 1 if the drain cut jobs short.")
]
_WithinOption = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=1, help="Longest time for the new code to load and warm up."),
]
_IdleArgument = Annotated[int, typer.Argument(metavar="N", min=0, help="Number of idle processes to hold.")]
_MaxOption = Annotated[
    int | None,
    typer.Option("--max", metavar="M", min=0, help="Most idle processes. Default: as before, or N if N is larger."),
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
            echo(as_json(started) if as_json_ else _draining(started))
            return ExitCode.OK
        end = await drain_and_wait(client, timeout, lambda text: echo(text, err=True))
    if as_json_:
        echo(as_json({**end.started, "cut_short": end.cut_short}))
    else:
        cut = ", ".join(map(one_line, end.cut_short))
        echo(f"the worker has ended. Jobs cut short: {cut}" if cut else "the worker has ended after its last job")
    return ExitCode.NEGATIVE if end.cut_short else ExitCode.OK


@with_connection
async def reload(connection: Connection, timeout: _WithinOption = _RELOAD_SECONDS, as_json_: JsonOption = False) -> int:
    """Load the code again and serve from it. Exits with 1 and the cause if that fails; the old code then goes on."""
    async with connection.open() as client:
        reloaded = (await client.post("/v1/pool/reload", {}, within=timeout)).body
    echo(as_json(reloaded) if as_json_ else f"generation {reloaded['generation']} serves from now on")
    return ExitCode.OK


@with_connection
async def resize(
    connection: Connection, n: _IdleArgument, max_idle: _MaxOption = None, as_json_: JsonOption = False
) -> int:
    """Hold N idle processes from now on. After its next start, the worker uses its settings again."""
    body = {"num_idle_processes": n} | ({} if max_idle is None else {"max_idle_processes": max_idle})
    async with connection.open() as client:
        resized = (await client.post("/v1/pool/resize", body)).body
    text = "idle processes to hold: {num_idle_processes}, at most {max_idle_processes}"
    echo(as_json(resized) if as_json_ else text.format(**resized))
    return ExitCode.OK


def _draining(started: dict[str, Any]) -> str:
    return f"draining: {started['jobs']} jobs may go on for {started['timeout']:g} s, then the worker ends"
