"""Command `greenroom top`: one picture, or a live view."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ...command_exit_codes import ExitCode
from ...errors import OptionError
from ..connection import Connections, JsonOption, with_connections
from ..printing import Failure
from ..text import as_json

if TYPE_CHECKING:
    from ..client import Answer
    from ..workers import Replies
    from .watched import Watched

__all__ = ["register"]

_FIRST_SECONDS = 3.0
"""Longest wait for a worker before the view of several workers opens. The view goes on trying."""

_OnceOption = Annotated[bool, typer.Option("--once", help="Show one picture, with all sessions, and exit.")]


def register(cli: typer.Typer) -> None:
    cli.command()(top)


@with_connections
async def top(connections: Connections, once: _OnceOption = False, as_json_: JsonOption = False) -> int:
    """Watch workers live: processes, sessions and troubles. Arrows select a session, enter shows it."""
    from ..client import ANSWER_SECONDS  # imported late: it loads the HTTP library
    from .live import LiveView, print_once  # imported late: it loads rich's live display
    from .plain import as_plain  # imported late, with the live view

    if not (once or as_json_ or sys.stdout.isatty()):
        raise OptionError("the standard output is not a terminal. Use --once or --json")
    async with connections.open() as workers:
        # Fetched before the view opens, so that a failure prints a plain message and sets the exit code.
        within = ANSWER_SECONDS if once or as_json_ or not workers.are_several else _FIRST_SECONDS
        replies = await workers.ask_each(lambda client: client.get("/v1/board", within=within))
        watched = _watched(replies)
        if as_json_:
            typer.echo(as_json(as_plain(watched, replies.as_plain(), time.time())))
            return replies.report_failures()
        if once:
            print_once(watched)
            return ExitCode.NEGATIVE if replies.failures else ExitCode.OK
        return await LiveView(workers, watched).run()


def _watched(replies: Replies[Answer]) -> list[Watched]:
    """Return the workers that the view shows, in their first state."""
    from .feed import note_loss  # imported late: it loads the HTTP library
    from .watched import Watched  # imported late, with the live view

    shown = []
    for reply in replies.each:
        worker = Watched(reply.worker)
        if isinstance(reply.answer, Failure):
            note_loss(worker, reply.answer)
        else:
            worker.hear("board", reply.answer.body, time.time())
        shown.append(worker)
    return shown
