"""`greenroom start` and `greenroom dev`: serve an app."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated

import typer

from ..log_fields import log_fields
from ..settings.environment import COMMAND_VARIABLE
from ..settings.fields import all_settings
from ..settings.layers import Resolved
from . import early_signals
from .logs import logging_to_stderr
from .options import Layers, find_modules_from_here, with_settings

__all__ = ["AppArgument", "ArgumentsArgument", "prepare_environment", "register"]

_logger = logging.getLogger("greenroom")

ArgumentsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGUMENT ...]", help="Arguments of the script, in sys.argv after `start` or `dev`."),
]
AppArgument = Annotated[str, typer.Argument(metavar="APP", help="agent.py, agent.py:app or package.module:app")]


def register(cli: typer.Typer) -> None:
    cli.command()(start)
    cli.command()(dev)


@with_settings("start")
def start(app: AppArgument, layers: Layers, arguments: ArgumentsArgument = None) -> int:
    """Serve an app. SIGTERM or Ctrl-C drains the worker, a second one ends it at once, and SIGHUP reloads the app."""
    return _serve(app, layers.resolve("start"), arguments or [], is_dev=False)


@with_settings("dev")
def dev(app: AppArgument, layers: Layers, arguments: ArgumentsArgument = None) -> int:
    """Serve an app during development: reload the app whenever a source file in its folder changes."""
    # CPython recognises a stale .pyc file by the source's size and time in whole seconds. Two quick changes can agree
    # in both.
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    return _serve(app, layers.resolve("dev"), arguments or [], is_dev=True)


def prepare_environment(resolved: Resolved) -> None:
    """Prepare the environment that the app and its jobs inherit: remove secrets, and set the loggers' variables."""
    _hide_secrets()
    _set_variables(resolved)


def _hide_secrets() -> None:
    """Remove the worker's secrets, and the paths to them, so that jobs cannot read them."""
    for setting in all_settings().values():
        if setting.is_secret or setting.is_secret_file:
            os.environ.pop(setting.variable, None)


def _set_variables(resolved: Resolved) -> None:
    """Set the variables from which an app sets up its loggers: the command and the log level."""
    os.environ[COMMAND_VARIABLE] = resolved.command
    if resolved.origins["log_level"].kind != "default":
        os.environ[all_settings()["log_level"].variable] = resolved.settings.log.log_level


def _warn_of_secrets(resolved: Resolved) -> None:
    for setting in all_settings().values():
        if setting.is_secret and resolved.origins[setting.name].kind == "flag":
            text = "%s is on the command line, which every process of this machine can read. Use the variable %s"
            extra = log_fields("secret_on_command_line", setting=setting.name)
            _logger.warning(text, setting.flag, setting.variable, extra=extra)


def _serve(app: str, resolved: Resolved, arguments: list[str], *, is_dev: bool) -> int:
    early_signals.install()
    from ..server import Worker  # imported late: its HTTP library would slow down all other commands
    from ..server.reload import source_folder

    find_modules_from_here(app)
    folder = source_folder(app) if is_dev else None
    settings = resolved.settings
    prepare_environment(resolved)
    with logging_to_stderr(settings.log):
        if resolved.file:
            path = str(resolved.file.resolve())
            _logger.info("settings are read from %s", path, extra=log_fields("settings_file", path=path))
        _warn_of_secrets(resolved)
        worker = Worker(app, resolved, watched=folder, is_dev=is_dev, arguments=arguments)
        return asyncio.run(worker.run())
