"""The command line: which commands there are, and how they end. Each is a module that registers itself."""

from __future__ import annotations

import importlib
import sys

import typer

from ..errors import OptionError
from ..exit_codes import ExitCode
from .failure import Failure
from .printing import tell
from .standard_streams import reopen_closed
from .text import one_line

__all__ = ["COMMANDS", "command_line", "main"]

COMMANDS = {
    "serve": ("start", "dev"),
    "jobs": ("jobs",),
    "status": ("status",),
    "top": ("top",),
    "control": ("drain", "reload", "resize"),
    "config": ("config",),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "init": ("init",),
    "version": ("version",),
}
"""What each module registers, in the order of the help."""

# All usage errors; typer exports only the most common kind of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def command_line(name: str = "") -> typer.Typer:
    """Return the command of that name, or all of them if there is none: to make one takes a tenth of a second."""
    cli = typer.Typer(
        name="greenroom",
        help="The process server for realtime agents: one warm, supervised, one-shot process for each session.",
        pretty_exceptions_enable=False,
    )
    cli.callback()(_nothing)  # with a callback, one command alone still goes by its name
    for module in [module for module, names in COMMANDS.items() if name in names] or COMMANDS:
        importlib.import_module(f".{module}", __package__).register(cli)
    return cli


def _nothing() -> None: ...


def main() -> None:
    """Run a command; exits with its exit code, and with 2 if it was not understood."""
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
    # Indented like the further lines of the log: none can pass for a line of the shell, or of another command.
    indented = message.replace("\n", "\n    ")
    tell(f"{one_line(command)}: error: {indented}", err=True)
    return code


def _message_of(error: Exception) -> str:
    return " ".join(str(getattr(error, "format_message", error.__str__)()).split())
