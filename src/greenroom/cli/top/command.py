"""Command `greenroom top`: one picture, or a live view."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ...command_exit_codes import ExitCode
from ...errors import OptionError
from ..connection import Connection, JsonOption, with_connection
from ..text import as_json

__all__ = ["register"]

_OnceOption = Annotated[bool, typer.Option("--once", help="Show one picture, with all sessions, and exit.")]


def register(cli: typer.Typer) -> None:
    cli.command()(top)


@with_connection
async def top(connection: Connection, once: _OnceOption = False, as_json_: JsonOption = False) -> int:
    """Watch a worker live: its processes, its sessions and its troubles. Arrows select a session, c cancels it."""
    from .live import LiveView, print_once  # imported late: it loads rich's live display
    from .picture import Picture  # imported late, with the live view

    if not (once or as_json_ or sys.stdout.isatty()):
        raise OptionError("the standard output is not a terminal. Use --once or --json")
    picture = Picture()
    async with connection.open() as client:
        # Fetched before the view opens, so that a failure prints a plain message and sets the exit code.
        picture.apply("board", (await client.get("/v1/board")).body)
        if as_json_:
            typer.echo(as_json(picture.as_plain(time.time())))
            return ExitCode.OK
        if once:
            print_once(picture)
            return ExitCode.OK
        return await LiveView(client, picture).run()
