"""Clients of this machine that need no token: processes of the same user, or of root, that no session has started.

TCP does not tell who has connected, but the kernel knows the user and the inode of the client's socket, and ``/proc``
knows which processes have that inode open. If one of them is an outsider, and none that comes before it is a session's,
the client is let in. What a session can have an outsider hold for it is a deputy, which no wall on this machine stops:
docs/threat-model.md.

A look at ``/proc`` takes milliseconds, so a thread does it, for all connections that wait. Processes that were clients
before are looked at first, then the youngest ones. A pause follows each look, so that neither sessions that ask again
and again, nor a client with thousands of connections, take more than a part of a CPU.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

from ..log_fields import log_fields
from ..system import proc
from ..system.inet_diag import Ends, owners
from .outsiders import Descent, is_outsider, workers_here

__all__ = ["LocalClients"]

_logger = logging.getLogger("greenroom")

LOOK_SHARE, SEARCH_SHARE = 0.25, 0.1
"""Part of a CPU that looks at former clients may take, and that searches among all processes may take."""
_LIVING = (1, 8)
"""States of a connection (tcp_states.h) whose client exists: ESTABLISHED and CLOSE_WAIT."""
LONGEST_PAUSE = 0.25
"""Seconds after a look, at most."""
MOST_INSIDE, MOST_FILES = 64, 64
"""Processes of sessions that one look looks into, and open files of each. A session can have any number of both."""
MOST_KNOWN = 16
"""Processes that are looked at first, because they were clients before."""


class LocalClients:
    """Judge of connections on a loopback address. Each connection is judged once."""

    def __init__(self) -> None:
        self._judged: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()
        self._waiting: dict[asyncio.BaseTransport, asyncio.Future[bool]] = {}
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="greenroom-clients")
        self._known: OrderedDict[int, None] = OrderedDict()
        """Processes that were clients before, the latest last. Used by the thread alone."""
        self._has_failed = False

    def close(self) -> None:
        """Judge no more."""
        if self._work is not None:
            self._work.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def is_outsider(self, connection: asyncio.BaseTransport) -> bool:
        """Return whether the client of a connection is a process that no session has started."""
        judged = self._judged.get(connection)
        if judged is None:
            # The order matters. If the connection lives after the look, its ends were those of its client at the look.
            # Else they may belong to another connection by now: that of an outsider, which had the same port.
            judged = await self._judgement(connection) and _lives(connection)
            self._judged[connection] = judged
        return judged

    async def _judgement(self, connection: asyncio.BaseTransport) -> bool:
        future = self._waiting.setdefault(connection, asyncio.get_running_loop().create_future())
        if self._work is None:
            self._work = asyncio.create_task(self._judge_all(), name="greenroom-clients")
        return await asyncio.shield(future)  # a client that goes away cancels its own request alone

    async def _judge_all(self) -> None:
        """Judge all that wait, and end."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                ends = {connection: _ends_of(connection) for connection in waiting}
                judged, pause = set[Ends](), 0.0
                try:
                    asked = [each for each in ends.values() if each is not None]
                    judged, pause = await loop.run_in_executor(self._thread, self._look, asked)
                finally:
                    for connection, future in waiting.items():
                        future.set_result(ends[connection] in judged)
                await asyncio.sleep(pause)
        finally:
            self._work = None

    # --- in the thread ----------------------------------------------------------------------------

    def _look(self, asked: list[Ends]) -> tuple[set[Ends], float]:
        """Return those whose client is an outsider, and the seconds until the next look."""
        begin = time.thread_time()
        try:
            found, is_long = self._outsiders_of(asked)
        except Exception as error:  # a client that is not judged is refused, and none may wait forever
            self._complain(error)
            found, is_long = set(), False
        share = SEARCH_SHARE if is_long else LOOK_SHARE
        return found, min((time.thread_time() - begin) * (1 / share - 1), LONGEST_PAUSE)

    def _outsiders_of(self, asked: list[Ends]) -> tuple[set[Ends], bool]:
        """Return those whose client is an outsider, and whether the search took long."""
        found, searched, own_user = set[Ends](), dict[int, Ends](), os.geteuid()
        for ends, owner in owners(asked).items():
            if owner.user == own_user:
                searched[owner.inode] = ends
            elif owner.user == 0:
                found.add(ends)  # root may do all. A session of another user has no socket of root's
        if not searched:
            return found, False
        workers, hidden, inside, is_long = workers_here(), list[int](), list[int](), False
        descent = Descent(workers)
        for pid, is_known in self._candidates():
            if not searched:
                return found, is_long
            is_long = is_long or not is_known
            try:
                if _is_inside(pid, descent):
                    inside.append(pid)
                    if len(inside) <= MOST_INSIDE:  # if it is the client, the search is over
                        _taken(searched, pid, MOST_FILES)
                    continue
                held = _taken(searched, pid)
                if held and _is_outsider(pid, workers):
                    found.update(held)
                    self._remember(pid)
            except PermissionError:
                hidden.append(pid)
            except OSError:
                continue  # the process has ended
        if own_user == 0 and hidden:
            # A worker of root without CAP_SYS_PTRACE does not see what root's processes with more capabilities hold.
            hidden += _hidden_of(inside, searched)
            if all(_may_be_let_in(pid, workers) for pid in hidden):
                found.update(searched.values())
        return found, is_long

    def _candidates(self) -> Iterator[tuple[int, bool]]:
        """Return processes, and whether they were clients before. The likely clients come first."""
        known = list(self._known)[::-1]
        yield from ((pid, True) for pid in known)
        # A command such as curl has just begun.
        yield from ((pid, False) for pid in sorted(proc.pids(), reverse=True) if pid not in known)

    def _remember(self, pid: int) -> None:
        self._known.pop(pid, None)
        self._known[pid] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _complain(self, error: Exception) -> None:
        """Log the first failure."""
        if not self._has_failed:
            self._has_failed = True
            text = "clients of this machine need the token, because they cannot be told from sessions: %s"
            _logger.warning(text, error, extra=log_fields("clients_unknown", cause=str(error)))


def _is_inside(pid: int, descent: Descent) -> bool:
    try:
        return descent.is_inside(pid)
    except OSError:
        return False  # it has ended, or an ancestor has: its files are looked at


def _hidden_of(pids: list[int], searched: dict[int, Ends]) -> list[int]:
    """Remove the sockets that these processes have open from the searched ones. Return those that cannot be seen."""
    hidden = []
    for pid in pids:
        try:
            _taken(searched, pid)
        except PermissionError:
            hidden.append(pid)
        except OSError:
            continue  # the process has ended
    return hidden


def _taken(searched: dict[int, Ends], pid: int, most: int | None = None) -> list[Ends]:
    """Remove the sockets that a process has open from the searched ones, and return their ends.

    ``most`` is the largest number of open files to look at.
    """
    sockets = proc.sockets(pid, most)
    # A number comes round after 2**32 sockets, and another kind of socket can have it, too.
    numbers = [inode for inode in sockets.keys() & searched.keys() if proc.is_tcp(sockets[inode], inode)]
    return [searched.pop(inode) for inode in numbers]


def _ends_of(connection: asyncio.BaseTransport) -> Ends | None:
    own, other = connection.get_extra_info("peername"), connection.get_extra_info("sockname")
    return Ends(own[:2], other[:2]) if own and other else None


def _lives(connection: asyncio.BaseTransport) -> bool:
    """Return whether the kernel has a connection, which a client may have reset although its bytes are still read."""
    sock = connection.get_extra_info("socket")
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LIVING
    except OSError:
        return False  # it is closed


def _is_outsider(pid: int, workers: frozenset[int]) -> bool:
    """Return whether no session has started a process, and its number still stands for the same process."""
    before = proc.stat(pid).started
    return is_outsider(pid, workers) and proc.stat(pid).started == before


def _may_be_let_in(pid: int, workers: frozenset[int]) -> bool:
    """Return whether a process that cannot be looked into may be the client, or has ended.

    A process with more capabilities than this one can do all to it anyway: so be it a session of another worker.
    """
    try:
        return bool(proc.capabilities(pid) & ~proc.capabilities(os.getpid())) or is_outsider(pid, workers)
    except OSError:
        return not os.path.exists(f"/proc/{pid}")
