"""Trial of the walls: a fork that raises them as a child does, and then tries what they forbid.

A version number proves nothing: a seccomp profile, a capability or another security module may decide otherwise. The
fork tries these deeds on its parent, which stands for the zygote and for the supervisor, and on a socket of the
supervisor.

``python -m greenroom.zygote.wall_trial`` prints the result as JSON, for `greenroom doctor`.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from ..errors import WallMissing
from ..system import abstract_scope
from ..wire import plain_json
from ..wire.messages import WALLS
from .walls import Walls

__all__ = ["raise_and_try", "refuse"]

_PATIENCE = 20.0
"""Seconds for the fork to try everything, on a busy machine."""

_CAPABLE = "a capability of this process passes through it (CAP_SYS_ADMIN, CAP_PERFMON or CAP_SYS_PTRACE)"


def raise_and_try(walls: Walls, outside: str) -> dict[str, str] | None:
    """Prepare this process for its forks, and try the walls of one.

    ``outside`` names a socket outside of the outer domain. Return the cause for each wall that is missing; ``None`` if
    no walls are wanted.
    """
    if not walls.are_wanted:
        return None
    walls.allow()
    return _try_in_fork(walls, outside)


def refuse(walls: Walls, missing: dict[str, str] | None) -> None:
    """Raise :class:`WallMissing` if a wall is missing, and all are required."""
    if walls.are_required and missing:
        raise WallMissing.of(missing)


def _try_in_fork(walls: Walls, outside: str) -> dict[str, str]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError as error:
        os.close(writing)
        os.close(reading)
        return dict.fromkeys(WALLS, f"the walls could not be tried: {error}")
    if pid == 0:
        _try(walls, outside, writing)
    os.close(writing)
    try:
        answer = _read(reading)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # it is not reaped, so the pid is its own
        os.waitpid(pid, 0)
    return plain_json.decoded(answer) if answer else dict.fromkeys(WALLS, "the trial of the walls gave no answer")


def _read(fd: int) -> bytes:
    """Read until the other end closes, or until the patience is over. Then return nothing."""
    answer, give_up = b"", time.monotonic() + _PATIENCE
    while select.select([fd], [], [], max(give_up - time.monotonic(), 0))[0]:
        piece = os.read(fd, 65536)
        if not piece:
            return answer
        answer += piece
    return b""


def _try(walls: Walls, outside: str, writing: int) -> NoReturn:
    """Raise the walls, try each deed, write the causes of those that succeed, and end this process."""
    try:
        try:
            walls.raise_in_fork()
        except OSError as error:  # a required wall cannot be raised
            missing = dict.fromkeys(WALLS, str(error))
        else:
            missing = dict(_missing(walls, outside))
        os.write(writing, plain_json.encoded(missing).encode())  # far below PIPE_BUF
    finally:
        os._exit(0)


def _missing(walls: Walls, outside: str) -> Iterator[tuple[str, str]]:
    """Try each deed. Return the name and the cause for each wall that did not stop it."""
    for name, deed in _deeds(os.getppid(), outside).items():
        try:
            deed()
        except PermissionError:
            continue
        except OSError as error:
            yield name, walls.problems.get(name, f"it could not be tried: {error}")
        else:
            yield name, walls.problems.get(name, _CAPABLE)


def _deeds(other: int, outside: str) -> dict[str, Callable[[], object]]:
    return {
        "memory": lambda: os.close(os.open(f"/proc/{other}/environ", os.O_RDONLY)),
        "signals": lambda: os.kill(other, 0),
        "sockets": lambda: abstract_scope.connect(outside),
        "limits": lambda: _set_limits(other),
    }


def _set_limits(other: int) -> None:
    """Set a limit of another process, or else the mark of this one, to what it is.

    Raises ``OSError`` if neither is done.
    """
    try:
        resource.prlimit(other, resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
    except PermissionError:
        resource.prlimit(0, resource.RLIMIT_RTTIME, resource.getrlimit(resource.RLIMIT_RTTIME))


def _raise_and_try_all() -> dict[str, str] | None:
    """Enter an outer domain, as a thread of the supervisor does, and try all walls in a fork."""
    sock, outside = abstract_scope.outside_socket()
    with sock:
        problem = ""
        try:
            abstract_scope.enter()
        except OSError as error:
            problem = error.strerror or str(error)
        return raise_and_try(Walls("auto", problem), outside)


if __name__ == "__main__":
    print(plain_json.encoded(_raise_and_try_all()))
