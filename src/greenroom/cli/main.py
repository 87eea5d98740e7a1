"""The command line: which commands there are, and how they end. Each is a module that registers itself."""

from __future__ import annotations

import sys

import typer

from ..errors import OptionError
from ..exit_codes import ExitCode
from . import bench, config, control, doctor, init, jobs, serve, status, top, version
from .failure import Failure
from .printing import tell
from .text import one_line

__all__ = ["cli", "main"]

# All usage errors; typer exports only the most common kind of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

cli = typer.Typer(
    name="greenroom",
    help="The process server for realtime agents: one warm, supervised, one-shot process for each session.",
    pretty_exceptions_enable=False,
)

# In the order of the help.
serve.register(cli)
jobs.register(cli)
status.register(cli)
top.register(cli)
control.register(cli)
config.register(cli)
doctor.register(cli)
bench.register(cli)
init.register(cli)
version.register(cli)


def main() -> None:
    """Run a command; exits with its exit code, and with 2 if it was not understood."""
    try:
        code = cli(sys.argv[1:] or ["--help"], prog_name="greenroom", standalone_mode=False)
    except Failure as error:
        code = _complain(f"greenroom {sys.argv[1]}", str(error), error.code)
    except OptionError as error:
        code = _complain_of_usage(f"greenroom {sys.argv[1]}", str(error))
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
