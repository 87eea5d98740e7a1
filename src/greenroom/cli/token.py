"""`greenroom token` and `greenroom page`: the token of a worker, and a link that opens its page."""

from __future__ import annotations

import os
import webbrowser
from typing import Annotated

import typer

from ..command_exit_codes import ExitCode
from .connection import Connection, with_connection
from .printing import Failure, echo

__all__ = ["register"]

_NoOpenFlag = Annotated[bool, typer.Option("--no-open", help="Only print the link.")]


def register(cli: typer.Typer) -> None:
    cli.command()(token)
    cli.command()(page)


@with_connection
async def token(connection: Connection) -> int:
    """Print the token of a worker, for curl and scripts. Exits with 1 if this command gets none."""
    if connection.token is None:
        raise Failure(
            f"the worker at {connection.url} gives this command no token: no worker is there, or it needs no token, or "
            "it runs as another user, on another machine or in another container; or a session has started this command"
        )
    echo(connection.token)
    return ExitCode.OK


@with_connection
async def page(connection: Connection, no_open: _NoOpenFlag = False) -> int:
    """Print a link that opens the page of a worker, and open it in a browser.

    If the page needs the token, the link has a code, and works once, within 60 s.
    """
    async with connection.open() as client:
        code = (await client.post("/v1/page/codes", {})).body["code"]
    link = f"{connection.url.rstrip('/')}/" + (f"#code={code}" if code is not None else "")
    echo(link)
    # Without a display, a browser in text mode would take over the terminal.
    if not no_open and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(link)
    return ExitCode.OK
