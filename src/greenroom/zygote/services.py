"""Services: processes that the zygote starts for all its children after the load, and again when they die.

Each service is a fork of the zygote, answers at an address that the children know, and dies with the zygote. The zygote
holds the listening socket. So a call that comes during a restart of the service waits, and is not refused.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ..backoff import backoff
from ..system import mark, passed_fds, prctl
from . import random_numbers, signals

__all__ = [
    "COULD_NOT_LOAD",
    "Service",
    "Services",
    "address_of",
    "addresses",
    "become",
    "listen",
    "raw",
]

Service = Callable[[socket.socket, float], int]
"""Function that serves at a listening socket, in a process of its own. The result is the exit code of that process.

The second argument is the pause, in seconds, that follows if the service dies now.
"""

COULD_NOT_LOAD = 75  # EX_TEMPFAIL
"""Exit code of a service that could not be loaded. The service has answered its callers with the error during the
pause, so no further pause is needed."""

_POOL = os.environ.get(mark.VARIABLE, "")
"""Token of the pool, read at the start of the zygote, since an app may clear its environment."""

_NONCE = os.urandom(8).hex()
"""Random part of this zygote's addresses. A session of an earlier zygote cannot take an address that it cannot know."""

_BACKLOG = 512
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 30.0
_IS_STEADY = 60.0
"""Seconds that a service must live so that its next death counts as the first in a row."""


class Services:
    """Timetable of the services, without I/O: those to start, those that run, and the time of each restart."""

    def __init__(self) -> None:
        self._functions: Mapping[str, Service] = {}
        self._running: dict[int, tuple[str, float]] = {}  # pid -> name, start
        self._due: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        """Number of deaths in a row, by service."""

    def want(self, functions: Mapping[str, Service], now: float) -> None:
        self._functions = dict(functions)
        self._due = dict.fromkeys(functions, now)

    @property
    def pids(self) -> set[int]:
        return set(self._running)

    def due(self, now: float) -> list[tuple[str, Service]]:
        return [(name, self._functions[name]) for name, at in self._due.items() if at <= now]

    def seconds_to_next(self, now: float) -> float | None:
        """Return the seconds until the next start is due; ``None`` if no service is to be started."""
        return max(0.0, min(self._due.values()) - now) if self._due else None

    def started(self, name: str, pid: int, now: float) -> None:
        self._running[pid] = (name, now)
        del self._due[name]

    def failed(self, name: str, now: float) -> None:
        """Note that a service could not be forked, and set the time of the next attempt."""
        self._due[name] = now + self._next_delay(name, 0.0)

    def died(self, pid: int, now: float, *, has_paused: bool = False) -> str | None:
        """Note a death, and set the time of the restart, which is later after each death in a row.

        Return the service's name; ``None`` if the process was no service. ``has_paused``: the exit code says that the
        service has already waited for the pause.
        """
        if pid not in self._running:
            return None
        name, since = self._running.pop(pid)
        has_paused = has_paused and now - since >= self.pause(name)  # otherwise the same exit code has another cause
        delay = self._next_delay(name, 0.0 if has_paused else now - since)
        self._due[name] = now if has_paused else now + delay
        return name

    def pause(self, name: str) -> float:
        """Return the seconds that would pass between the service's next death and its restart, if it died now."""
        return backoff(self._deaths.get(name, 0) + 1, first=_FIRST_DELAY, longest=_LONGEST_DELAY)

    def _next_delay(self, name: str, lived: float) -> float:
        if lived >= _IS_STEADY:
            self._deaths[name] = 0
        delay = self.pause(name)
        self._deaths[name] = self._deaths.get(name, 0) + 1
        return delay


def raw(serve: Callable[[socket.socket], object]) -> Service:
    """Make a service from a function of an integration, which need not know pauses and exit codes."""

    def service(listener: socket.socket, pause: float) -> int:
        serve(listener)
        return 0

    return service


def listen(name: str, generation: int) -> socket.socket:
    """Open the listening socket of a service."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        passed_fds.refuse(listener)
        listener.bind(address_of(name, generation))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(name: str, generation: int) -> str:
    """Return the address at which the service of this generation's zygote listens."""
    # In the abstract namespace (unix(7)), an address needs no clean-up: it vanishes with its socket.
    return f"\0{_prefix()}{generation}/{name}/{_NONCE}"


def addresses(name: str, generation: int) -> list[str]:
    """Return the addresses at which the service may listen, the best one first.

    The address of this process's own zygote comes alone. If that zygote was lost, those of its generation come alone,
    and without any of them all others, the newest first.
    """
    pattern = re.compile(rf"@({re.escape(_prefix())}(\d+)/{re.escape(name)}/\w+)$", re.MULTILINE)
    matches = pattern.findall(Path("/proc/self/net/unix").read_text())
    found = {f"\0{address}": int(number) for address, number in matches}
    own = address_of(name, generation)
    if own in found:
        return [own]
    same = [address for address, number in found.items() if number == generation]
    return same or sorted(found, key=lambda address: found[address], reverse=True)


def become(service: Service, listener: socket.socket, pause: float, *, zygote: int, close: list[int]) -> NoReturn:
    """Turn this process, a fork of the zygote that has marked itself, into the service. Never returns."""
    code = 1
    try:
        prctl.set_parent_death_signal()
        if os.getppid() != zygote:
            os._exit(1)  # the zygote died before the call above, so its death sends no signal
        for fd in close:
            os.close(fd)
        signals.reset_in_child()
        os.setpgid(0, 0)
        prctl.set_name("gr:service")
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
