"""Processes that the zygote runs for all its children: started with it, and again when they die.

Each is a fork of the zygote, answers at an address that the children know, and dies with the zygote. The zygote holds
the socket that listens: whoever calls while a service is started again waits there, and nobody's call is refused.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ..system import mark, prctl
from . import random_numbers, signals

__all__ = [
    "COULD_NOT_LOAD",
    "Service",
    "Services",
    "address_of",
    "addresses",
    "become",
    "is_own_user",
    "listen",
    "raw",
]

Service = Callable[[socket.socket, float], int]
"""Serves at a socket that listens; runs in a process of its own, which ends with the exit code that it returns.

It is told the pause, in seconds, that would follow its death.
"""

COULD_NOT_LOAD = 75  # EX_TEMPFAIL
"""The exit code of a service that could not be loaded, and has let the pause go by while it told its callers why."""

_POOL = os.environ.get(mark.VARIABLE, "")
"""As it is at the start of the zygote: an app may clear its environment."""

_BACKLOG = 512
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 30.0
_IS_STEADY = 60.0
"""Seconds that a service must live for its next death to count as the first."""


class Services:
    """Which services are to run, which do, and when one that died is to be started again. No I/O."""

    def __init__(self) -> None:
        self._functions: Mapping[str, Service] = {}
        self._running: dict[int, tuple[str, float]] = {}  # pid -> name, start
        self._due: dict[str, float] = {}
        self._delays: dict[str, float] = {}

    def want(self, functions: Mapping[str, Service], now: float) -> None:
        self._functions = dict(functions)
        self._due = dict.fromkeys(functions, now)

    @property
    def pids(self) -> set[int]:
        return set(self._running)

    def due(self, now: float) -> list[tuple[str, Service]]:
        return [(name, self._functions[name]) for name, at in self._due.items() if at <= now]

    def seconds_to_next(self, now: float) -> float | None:
        """Until one is due; ``None`` if none is to be started."""
        return max(0.0, min(self._due.values()) - now) if self._due else None

    def started(self, name: str, pid: int, now: float) -> None:
        self._running[pid] = (name, now)
        del self._due[name]

    def failed(self, name: str, now: float) -> None:
        """It could not be forked."""
        self._due[name] = now + self._next_delay(name, 0.0)

    def died(self, pid: int, now: float, *, has_paused: bool = False) -> str | None:
        """The service's name, if this was one; it is started again, each time in a row a while later."""
        if pid not in self._running:
            return None
        name, since = self._running.pop(pid)
        has_paused = has_paused and now - since >= self.pause(name)  # else its exit code only looks like that
        delay = self._next_delay(name, 0.0 if has_paused else now - since)
        self._due[name] = now if has_paused else now + delay
        return name

    def pause(self, name: str) -> float:
        """Seconds that would pass after its next death, if that came soon."""
        return self._delays.get(name, _FIRST_DELAY)

    def _next_delay(self, name: str, lived: float) -> float:
        delay = _FIRST_DELAY if lived >= _IS_STEADY else self._delays.get(name, _FIRST_DELAY)
        self._delays[name] = min(2 * delay, _LONGEST_DELAY)
        return delay


def raw(serve: Callable[[socket.socket], object]) -> Service:
    """Make a service of an integration's function, which need not know of pauses and exit codes."""

    def service(listener: socket.socket, pause: float) -> int:
        serve(listener)
        return 0

    return service


def listen(name: str, generation: int) -> socket.socket:
    """Open the socket of a service."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(address_of(name, generation))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(name: str, generation: int) -> str:
    """Where the service of this generation's zygote listens."""
    # In the abstract namespace: gone with the process that listens, and nothing to clean up.
    return f"\0{_prefix()}{generation}/{name}"


def addresses(name: str, generation: int) -> list[str]:
    """Where the service may listen: that of this generation's zygote; else, if it was lost, the newest one's."""
    own = address_of(name, generation)
    pattern = re.compile(rf"@{re.escape(_prefix())}(\d+)/{re.escape(name)}$", re.MULTILINE)
    found = {int(number) for number in pattern.findall(Path("/proc/self/net/unix").read_text())}
    return [own] if generation in found else [address_of(name, number) for number in sorted(found, reverse=True)]


def is_own_user(sock: socket.socket) -> bool:
    """Whether the peer runs as the same user: anybody on the machine can find an abstract address."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.getuid())


def become(service: Service, listener: socket.socket, pause: float, *, zygote: int, close: list[int]) -> NoReturn:
    """Be the service. Called right after the fork."""
    code = 1
    try:
        prctl.set_parent_death_signal()
        if os.getppid() != zygote:
            os._exit(1)  # it has died already, so that signal will not come
        for fd in close:
            os.close(fd)
        signals.reset_in_child()
        os.setpgid(0, 0)
        prctl.set_name("gr:service")
        if not mark.put(_POOL, os.getpid()):  # what it leaves behind is ended with it
            prctl.set_child_subreaper()
        random_numbers.reseed()
        gc.enable()
        code = service(listener, pause)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _prefix() -> str:
    return f"greenroom/{_POOL}/"
