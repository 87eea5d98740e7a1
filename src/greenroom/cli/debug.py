"""`greenroom debug`: the decisions of a worker in its last minutes, and their reasons."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..command_exit_codes import ExitCode
from ..settings import DEFAULTS
from ..settings.fields import all_settings
from .connection import Connections, with_connections
from .printing import Failure, echo
from .text import one_line

__all__ = ["register"]

_CrashedFlag = Annotated[
    bool, typer.Option("--crashed", help="Recording that this user's latest crashed worker has left on this machine.")
]
_FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="PATH", help="Folder of a crashed worker, or file made from ProcessPool.recording()."
    ),
]
_FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Recording to replay; - is the standard input.")]
_UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Time (UTC) at which to stop: 12:03:07.5 or 2026-11-29T12:03:07.5."),
]
_JobOption = Annotated[
    str | None, typer.Option("--job", metavar="ID", help="Show only decisions about this job, and stop at its end.")
]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object in each line.")]


def register(cli: typer.Typer) -> None:
    debug = typer.Typer(help="Record and replay the last minutes of a worker.")
    debug.command("record")(record)
    debug.command("replay")(replay)
    cli.add_typer(debug, name="debug")


@with_connections
async def record(connections: Connections, crashed: _CrashedFlag = False, path: _FromOption = None) -> int:
    """Write the flight recording of a worker to the standard output, with one JSON object in each line.

    The worker can be running or can have crashed. The recording has job ids, labels and process ids, but no metadata,
    results or error messages.
    """
    from ..pool.flight_recorder.download import pieces_of_path  # imported late: it loads the core of the pool

    if crashed and path is not None:
        raise typer.BadParameter("--crashed and --from exclude each other")
    if crashed:
        path = _latest_crash()
    if path is not None:
        return _write_out(pieces_of_path(path), str(path))
    connection = connections.only
    async with connection.open() as client:
        pieces = [piece async for piece in client.pieces("/v1/debug/recording")]
    return _write_out(pieces, f"the recording of {connection.url}")


def _latest_crash() -> Path:
    from ..pool.flight_recorder.storage import crashed_in, home  # imported late: it loads the core of the pool

    setting = all_settings()["flight_recorder_dir"]
    parent = Path(os.environ.get(setting.variable) or str(setting.of(DEFAULTS["start"])))
    found = crashed_in(parent)
    if not found:
        raise Failure(
            f"{home(parent)} has no recording of a crashed worker. If the worker had another flight_recorder_dir, set "
            f"{setting.variable} to that folder, or use --from"
        )
    if len(found) > 1:
        others = ", ".join(str(one.path) for one in found[1:])
        echo(f"{found[0].path} is the latest of {len(found)} recordings; the others are {others}", err=True)
    return found[0].path


def _write_out(pieces: Iterable[bytes], name: str) -> int:
    from ..pool.flight_recorder.field_kinds import BadRow  # imported late: it loads the core of the pool
    from ..pool.flight_recorder.reader import written_out  # imported late: it loads the core of the pool

    count = 0
    try:
        for line in written_out(pieces):
            sys.stdout.buffer.write(line)
            count += 1
        sys.stdout.buffer.flush()
    except BadRow as error:
        raise Failure(f"{name} is not a flight recording: {error}", ExitCode.USAGE) from None
    except BrokenPipeError:
        _leave_pipe()
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}", ExitCode.USAGE) from None
    else:
        if not count:
            raise Failure(f"{name} is empty")
    return ExitCode.OK


def _leave_pipe() -> None:
    """Discard all further output, since its reader has gone. Otherwise Python's flush at exit would fail, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def replay(
    file: _FileArgument, until: _UntilOption = None, job: _JobOption = None, as_json: _JsonOption = False
) -> int:
    """Replay a recording, and print each decision with its reason. Exits with 1 if this version decides differently.

    Nothing is started or changed. The recording may come from a stranger.
    """
    from ..pool.flight_recorder.field_kinds import BadRow  # imported late: it loads the core of the pool
    from ..pool.flight_recorder.reader import lines_of  # imported late: it loads the core of the pool
    from .replaying import Replaying  # imported late: it loads the core of the pool

    try:
        return Replaying(lines_of(_pieces(file)), until=until, job=job, as_json=as_json).run()
    except BadRow as error:
        raise Failure(f"{one_line(file)} cannot be replayed: {error}", ExitCode.USAGE) from None
    except BrokenPipeError:
        _leave_pipe()
        return ExitCode.OK
    except OSError as error:
        raise Failure(f"{one_line(file)} cannot be read: {error.strerror}", ExitCode.USAGE) from None


def _pieces(file: str) -> Iterator[bytes]:
    # imported late: it loads the core of the pool
    from ..pool.flight_recorder.download import pieces_of_file, pieces_of_path

    return pieces_of_file(sys.stdin.buffer) if file == "-" else pieces_of_path(Path(file))
