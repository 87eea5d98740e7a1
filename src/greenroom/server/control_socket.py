"""Control socket: gives the worker's token to commands of the same user, and to nobody that a session has started.

The socket is abstract: ``\\0greenroom/control/PORT``. A peer that connects is put to a challenge:

1. The peer says hello. The kernel adds the pid of the sender (SCM_CREDENTIALS in unix(7)).
2. The worker opens a pidfd of this process, and sends a random nonce.
3. The peer sends the nonce back. The kernel adds the pid again. It must be the same, and the process must still live.
   So the pid is not that of a dead process whose number another one has got.
4. The process must belong to the same user or to root, and no session may have started it: see ``outsiders``.

A process of another pid namespace has the pid 0 here, and is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from ..log_fields import log_fields
from ..system import passed_fds
from ..system.control_address import HELLO, NONCE_BYTES, control_address
from .outsiders import is_outsider, workers_here

__all__ = ["ControlSocket"]

_logger = logging.getLogger("greenroom")

MOST_PEERS = 16
"""Most peers at the same time."""
PEER_SECONDS = 1.0
"""Time for one peer."""
_CREDENTIALS = struct.Struct("3i")


class NotAllowed(Exception):
    """Peer that does not get the token, with the reason."""


class ControlSocket:
    """Listener of one worker, from :meth:`start` to :meth:`close`. ``token`` returns the token that is in force."""

    def __init__(self, port: int, token: Callable[[], bytes | None]) -> None:
        self._port = port
        self._token = token
        self._listener: socket.socket | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self._pause_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen. Without the socket, the worker serves, and commands need the token: this is logged."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # connections inherit this
            passed_fds.refuse(listener)
            listener.bind(control_address(self._port))
            listener.listen(MOST_PEERS)
        except OSError as error:
            listener.close()
            text = "commands cannot get the token by themselves: the control socket of port %d: %s"
            _logger.warning(text, self._port, error, extra=log_fields("no_control_socket", cause=str(error)))
            return
        self._listener = listener
        self._go_on()

    async def close(self) -> None:
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for peer in self._peers:
            peer.cancel()
        if self._peers:
            await asyncio.wait(self._peers)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return  # the peer is gone
        except OSError:
            self._pause()  # no fd is free, and the listener would be readable in each turn of the event loop
            return
        sock.setblocking(False)
        if len(self._peers) >= MOST_PEERS:
            sock.close()
            return
        peer = asyncio.create_task(self._serve(sock), name="greenroom-control")
        self._peers.add(peer)
        peer.add_done_callback(self._peers.discard)

    def _pause(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener)
        self._pause_timer = asyncio.get_running_loop().call_later(PEER_SECONDS, self._go_on)

    def _go_on(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(PEER_SECONDS):
                answer = await self._challenge(sock)
        except NotAllowed as refusal:
            answer = {"error": str(refusal)}
        except (OSError, TimeoutError):
            sock.close()
            return
        with suppress(OSError):
            sock.send(json.dumps(answer).encode())
        sock.close()

    async def _challenge(self, sock: socket.socket) -> dict[str, str]:
        data, pid, user = await _receive(sock)
        if data != HELLO:
            raise NotAllowed("this is not the greeting of a greenroom command")
        if pid == 0:
            raise NotAllowed("the process belongs to another pid namespace")
        pidfd = os.pidfd_open(pid)
        try:
            nonce = secrets.token_bytes(NONCE_BYTES)
            sock.send(nonce)
            answer, again, user_again = await _receive(sock)
            if (answer, again, user_again) != (nonce, pid, user):
                raise NotAllowed("another process has answered")
            _check_user(user)
            await asyncio.to_thread(_check_origin, pid)
            if _has_ended(pidfd):
                raise NotAllowed("the process has ended")
        finally:
            os.close(pidfd)
        token = self._token()
        return {} if token is None else {"token": token.decode()}


def _check_user(user: int) -> None:
    if user not in (0, os.geteuid()):
        raise NotAllowed(f"the user {user} is neither the worker's nor root")


def _check_origin(pid: int) -> None:
    """Raise :class:`NotAllowed` if a session has started a process."""
    try:
        if is_outsider(pid, workers_here()):
            return
    except (OSError, ValueError) as error:
        raise NotAllowed(f"the origin of the process cannot be found: {error}. Try again") from None
    raise NotAllowed("a session has started the process, or it is in a sandbox. See the setting sessions_may")


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def _receive(sock: socket.socket) -> tuple[bytes, int, int]:
    """Return one message with the pid and the user of its sender. Raises ``OSError`` if the peer is gone."""
    await _readable(sock)
    data, ancillary, _, _ = sock.recvmsg(256, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) >= _CREDENTIALS.size:
            pid, user, _ = _CREDENTIALS.unpack_from(content)
            return data, pid, user
    raise OSError("the peer has closed its connection, or sends no credentials")


async def _readable(sock: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
