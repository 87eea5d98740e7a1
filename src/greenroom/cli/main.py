"""The commands. Thin: they read options, and hand over."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import OptionError
from ..options import PoolOptions
from ..server import ServerOptions, Worker
from ..server.reload import source_folder
from .fields import with_fields
from .logs import LogOptions, logging_to_stderr

__all__ = ["cli", "main"]

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_DEFAULT_POOL, _DEFAULT_SERVER, _DEFAULT_LOGS = PoolOptions(), ServerOptions(), LogOptions()
_DEV_POOL, _DEV_SERVER = PoolOptions(num_idle_processes=1), ServerOptions(drain_timeout=5.0)

# All usage errors; typer exports only the most common kind of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="agent.py, agent.py:app or package.module:app")]

cli = typer.Typer(
    name="greenroom",
    help="The process server for realtime agents: one warm, supervised, one-shot process for each session.",
    pretty_exceptions_enable=False,
)


@cli.command()
@with_fields
def start(
    app: AppArgument,
    pool: PoolOptions = _DEFAULT_POOL,
    server: ServerOptions = _DEFAULT_SERVER,
    logs: LogOptions = _DEFAULT_LOGS,
) -> int:
    """Serve an app. SIGTERM or Ctrl-C drains, a second one ends at once, SIGHUP reloads."""
    return _serve(app, pool, server, logs, is_dev=False)


@cli.command()
@with_fields
def dev(
    app: AppArgument,
    pool: PoolOptions = _DEV_POOL,
    server: ServerOptions = _DEV_SERVER,
    logs: LogOptions = _DEFAULT_LOGS,
) -> int:
    """Serve an app while working on it: it is reloaded whenever a source file in its folder changes."""
    # Compiled files are told from stale ones by size and whole seconds: too coarse for two changes in a row.
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    return _serve(app, pool, server, logs, is_dev=True)


@cli.command()
def version() -> int:
    """Show the version."""
    typer.echo(__version__)
    return 0


def main() -> None:
    """Run a command; exits with its exit code, and with 2 if it was not understood."""
    try:
        code = cli(sys.argv[1:] or ["--help"], prog_name="greenroom", standalone_mode=False)
    except OptionError as error:
        code = _complain(f"greenroom {sys.argv[1]}", str(error))
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        code = _complain(context.command_path if context else "greenroom", _message_of(error))
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _serve(app: str, pool: PoolOptions, server: ServerOptions, logs: LogOptions, *, is_dev: bool) -> int:
    if not app.partition(":")[0].endswith(".py"):
        sys.path.insert(0, os.getcwd())  # modules are found from here, as with `python -m`
    folder = source_folder(app) if is_dev else None
    with logging_to_stderr(logs):
        return asyncio.run(Worker(app, pool, server, watched=folder).run())


def _complain(command: str, message: str) -> int:
    print(f"{command}: error: {message} (see {command} --help)", file=sys.stderr)
    return EXIT_USAGE


def _message_of(error: Exception) -> str:
    return " ".join(str(getattr(error, "format_message", error.__str__)()).split())
