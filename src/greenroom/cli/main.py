"""Entry point of the command line. Each command is in a module that registers the command."""

from __future__ import annotations

import importlib
import sys

import typer

from ..command_exit_codes import ExitCode
from ..errors import OptionError
from .printing import Failure, echo
from .standard_streams import reopen_closed
from .text import one_line

__all__ = ["COMMANDS", "command_line", "main"]

COMMANDS = {
    "serve": ("start", "dev"),
    "jobs": ("jobs",),
    "status": ("status",),
    "token": ("token", "page"),
    "problems": ("problems",),
    "top": ("top",),
    "control": ("drain", "reload", "resize"),
    "config": ("config",),
    "doctor": ("doctor",),
    "debug": ("debug",),
    "bench": ("bench",),
    "init": ("init",),
    "version": ("version",),
}
"""Modules in the order of the help, with the commands that each registers."""

# Base class of all usage errors. typer exports only its most common subclass.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def command_line(name: str = "") -> typer.Typer:
    """Return a command line with the command of that name, or with all commands if there is none.

    One command is made alone, since each takes up to a tenth of a second.
    """
    cli = typer.Typer(
        name="greenroom",
        help="The process server for realtime agents: one warm, supervised, one-shot process for each session.",
        pretty_exceptions_enable=False,
    )
    cli.callback()(_nothing)  # without a callback, typer would not expect the name of a single command
    for module in [module for module, names in COMMANDS.items() if name in names] or COMMANDS:
        importlib.import_module(f".{module}", __package__).register(cli)
    return cli


def _nothing() -> None: ...


def main() -> None:
    """Run a command and exit with its exit code, or with 2 if the command line is invalid."""
    reopen_closed()
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = command_line(arguments[0])(arguments, prog_name="greenroom", standalone_mode=False)
    except Failure as error:
        code = _complain(f"greenroom {arguments[0]}", str(error), error.code)
    except OptionError as error:
        code = _complain_of_usage(f"greenroom {arguments[0]}", str(error))
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        code = _complain_of_usage(context.command_path if context else "greenroom", _message_of(error))
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def _complain_of_usage(command: str, message: str) -> int:
    return _complain(command, f"{message} (see {command} --help)", ExitCode.USAGE)


def _complain(command: str, message: str, code: ExitCode) -> int:
    # Indented, so that no further line can look like a line of the shell or of another command.
    indented = message.replace("\n", "\n    ")
    echo(f"{one_line(command)}: error: {indented}", err=True)
    return code


def _message_of(error: Exception) -> str:
    return " ".join(str(getattr(error, "format_message", error.__str__)()).split())
