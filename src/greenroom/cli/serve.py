"""`greenroom start` and `greenroom dev`: serve an app."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer

from ..settings import DEFAULTS, LogOptions, PoolOptions, ServerOptions, Settings
from .fields import with_fields
from .logs import logging_to_stderr

__all__ = ["AppArgument", "register"]

_START, _DEV = DEFAULTS["start"], DEFAULTS["dev"]

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="agent.py, agent.py:app or package.module:app")]


def register(cli: typer.Typer) -> None:
    cli.command()(start)
    cli.command()(dev)


@with_fields
def start(
    app: AppArgument,
    pool: PoolOptions = _START.pool,
    server: ServerOptions = _START.server,
    log: LogOptions = _START.log,
) -> int:
    """Serve an app. SIGTERM or Ctrl-C drains, a second one ends at once, SIGHUP reloads."""
    return _serve(app, Settings(pool=pool, server=server, log=log), is_dev=False)


@with_fields
def dev(
    app: AppArgument,
    pool: PoolOptions = _DEV.pool,
    server: ServerOptions = _DEV.server,
    log: LogOptions = _DEV.log,
) -> int:
    """Serve an app while working on it: it is reloaded whenever a source file in its folder changes."""
    # Compiled files are told from stale ones by size and whole seconds: too coarse for two changes in a row.
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    return _serve(app, Settings(pool=pool, server=server, log=log), is_dev=True)


def _serve(app: str, settings: Settings, *, is_dev: bool) -> int:
    from ..server import Worker  # with its HTTP library, which no other command should wait for
    from ..server.reload import source_folder

    if not app.partition(":")[0].endswith(".py"):
        sys.path.insert(0, os.getcwd())  # modules are found from here, as with `python -m`
    folder = source_folder(app) if is_dev else None
    with logging_to_stderr(settings.log):
        return asyncio.run(Worker(app, settings, watched=folder, is_dev=is_dev).run())
