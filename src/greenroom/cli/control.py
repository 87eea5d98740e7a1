"""`greenroom drain`, `reload` and `resize`: control of running workers by an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..command_exit_codes import ExitCode
from .connection import Connections, JsonOption, with_connections
from .printing import echo
from .text import as_json, one_line

if TYPE_CHECKING:
    from .client import Client
    from .workers import Workers

__all__ = ["register"]

_Plain = dict[str, Any]

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
_AllFlag = Annotated[
    bool, typer.Option("--all", help="Act on each of several workers in turn, and stop at the first failure.")
]


def register(cli: typer.Typer) -> None:
    cli.command()(drain)
    cli.command()(reload)
    cli.command()(resize)


@with_connections
async def drain(
    connections: Connections,
    timeout: _TimeoutOption = None,
    wait: _WaitFlag = False,
    on_all: _AllFlag = False,
    as_json_: JsonOption = False,
) -> int:
    """Drain a worker, as SIGTERM does: the worker takes no more jobs, and ends after its last job."""
    from .draining import drain_and_wait, start_to_drain  # imported late: it loads the HTTP library

    async def act(workers: Workers, client: Client) -> _Plain:
        if not wait:
            return await start_to_drain(client, timeout)
        end = await drain_and_wait(client, timeout, lambda text: echo(_named(workers, client, text), err=True))
        return {**end.started, "cut_short": end.cut_short}

    results = await _act_on(connections, on_all, act, _drained if wait else _draining, as_json_)
    return ExitCode.NEGATIVE if any(result.get("cut_short") for result in results) else ExitCode.OK


@with_connections
async def reload(
    connections: Connections,
    timeout: _WithinOption = _RELOAD_SECONDS,
    on_all: _AllFlag = False,
    as_json_: JsonOption = False,
) -> int:
    """Load the code again and serve from it. Exits with 1 and the cause if that fails; the old code then goes on."""

    async def act(workers: Workers, client: Client) -> _Plain:
        reloaded: _Plain = (await client.post("/v1/pool/reload", {}, within=timeout)).body
        return reloaded

    await _act_on(connections, on_all, act, "generation {generation} serves from now on".format_map, as_json_)
    return ExitCode.OK


@with_connections
async def resize(
    connections: Connections,
    n: _IdleArgument,
    max_idle: _MaxOption = None,
    on_all: _AllFlag = False,
    as_json_: JsonOption = False,
) -> int:
    """Hold N idle processes from now on. After its next start, the worker uses its settings again."""
    body = {"num_idle_processes": n} | ({} if max_idle is None else {"max_idle_processes": max_idle})

    async def act(workers: Workers, client: Client) -> _Plain:
        resized: _Plain = (await client.post("/v1/pool/resize", body)).body
        return resized

    text_of = "idle processes to hold: {num_idle_processes}, at most {max_idle_processes}".format_map
    await _act_on(connections, on_all, act, text_of, as_json_)
    return ExitCode.OK


async def _act_on(
    connections: Connections,
    on_all: bool,
    act: Callable[[Workers, Client], Awaitable[_Plain]],
    text_of: Callable[[_Plain], str],
    as_json_: bool,
) -> list[_Plain]:
    """Act on the only worker, or on all workers in turn. Print and return the results.

    Several workers are an error, unless they are meant: a variable that names all of them, for commands that only look,
    must not make a drain of one a drain of all.
    """
    if not on_all:
        connections.require_one("Name one of them with --url, or act on each in turn with --all")
    results: list[_Plain] = []
    async with connections.open() as workers:

        def finish(client: Client, result: _Plain) -> None:
            results.append(workers.marked(client, result))
            if not as_json_:
                echo(_named(workers, client, text_of(result)))

        try:
            await workers.act_in_turn(lambda client: act(workers, client), finish)
        finally:
            if as_json_ and results:
                echo(as_json({"workers": results} if workers.are_several else results[0]))
    return results


def _named(workers: Workers, client: Client, text: str) -> str:
    return f"{workers.name_of(client)}: {text}" if workers.are_several else text


def _draining(started: _Plain) -> str:
    return f"draining: {started['jobs']} jobs may go on for {started['timeout']:g} s, then the worker ends"


def _drained(end: _Plain) -> str:
    cut = ", ".join(map(one_line, end["cut_short"]))
    return f"the worker has ended. Jobs cut short: {cut}" if cut else "the worker has ended after its last job"
