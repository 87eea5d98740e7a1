"""Connection of one registration to one LiveKit server: a WebSocket, opened and registered again after each end.

The connection runs in the event loop of the worker. One attempt is: connect, register, then send and receive until the
socket ends. :meth:`Connection.run` repeats this until it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Literal, Protocol

import aiohttp

from ....backoff import backoff
from ....log_fields import log_fields
from . import livekit_protocol
from .livekit_protocol import GoneAway, ProtocolError, Registered, ServerMessage
from .registrations import Registration
from .tokens import Signer

__all__ = ["Connection", "ConnectionState", "Owner"]

_logger = logging.getLogger("greenroom.livekit")

CONNECT_TIMEOUT = 10.0
"""Seconds to open the WebSocket."""
REGISTER_TIMEOUT = 10.0
"""Seconds from the request to register until the server's answer."""
CLOSE_TIMEOUT = 2.0
"""Seconds to send the last messages, and seconds for the server to answer the close of the WebSocket."""
HEARTBEAT = 15.0
"""Seconds between two pings. If no answer comes within half of this time, the connection is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two attempts, which double after each failure. A random part, up to a half, is taken off."""
STABLE = 10.0
"""Seconds of registration that count as a success. After a success, the next pause is the shortest again."""
LARGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes. A larger message from the server ends the connection."""

ConnectionState = Literal["connecting", "registered", "waiting", "closed"]


class Owner(Protocol):
    """Owner of connections, which gets their events. No method may block or wait.

    The order for one attempt is ``registered``, ``received`` for each message, and ``lost``. An attempt that fails
    before the registration calls only ``state_changed``.
    """

    def registered(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, message: ServerMessage) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def state_changed(self, connection: Connection) -> None: ...


class _Dropped(Exception):
    """End of the connection. The text of the exception names the cause."""


@dataclass
class _Outbox:
    """Messages to send on one socket. After the end of the socket, no message is sent on the next socket."""

    queue: asyncio.Queue[bytes]
    writer: asyncio.Task[None]


class Connection:
    """Connection of one registration. :meth:`run` ends only by a cancellation."""

    def __init__(self, registration: Registration, session: aiohttp.ClientSession, listener: Owner) -> None:
        self.registration = registration
        self.signer = Signer(registration.server.api_key, registration.server.api_secret)
        self.state: ConnectionState = "connecting"
        self.detail = "not tried yet"
        self.worker_id = ""
        """Id that the server gives to the worker, anew for each connection."""
        self.registrations = 0
        self.response = b""
        """Server's answer to the last registration, as the server has encoded it."""
        self._session = session
        self._listener = listener
        self._outbox: _Outbox | None = None
        self._registered_at = 0.0
        self._request = livekit_protocol.register(
            registration.kind,
            registration.agent_name,
            registration.version,
            registration.permissions,
            registration.deployment,
        )

    def send(self, data: bytes) -> bool:
        """Send a message. Return false if the worker is not registered now: then the message is lost."""
        if self._outbox is None:
            return False
        self._outbox.queue.put_nowait(data)
        return True

    async def run(self) -> None:
        """Stay registered: log the end of each attempt, and then try again, after a pause."""
        attempt = 0
        while True:
            problem = await self._attempt()
            if self._registered_at and time.monotonic() - self._registered_at >= STABLE:
                attempt = 0
            self._registered_at = 0.0
            attempt += 1
            delay = backoff(attempt, first=FIRST_PAUSE, longest=LONGEST_PAUSE, chance=random.random())
            ids = self.registration.ids
            extra = log_fields("livekit_disconnected", **ids, cause=problem, retry_after=round(delay, 1))
            _logger.warning("%s: %s; next attempt in %.1f s", self.registration, problem, delay, extra=extra)
            self._change("waiting", problem)
            await asyncio.sleep(delay)

    async def flush(self) -> None:
        """Wait until all messages of :meth:`send` are written to the socket, or the socket has ended.

        Wait for at most ``CLOSE_TIMEOUT`` seconds.
        """
        outbox = self._outbox
        if outbox is not None:
            emptied = asyncio.create_task(outbox.queue.join())
            await asyncio.wait({emptied, outbox.writer}, timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            emptied.cancel()

    # --- one attempt -----------------------------------------------------------------------------

    async def _attempt(self) -> str:
        """Connect, register and serve. Return the cause of the connection's end."""
        self._change("connecting", "connecting")
        try:
            async with await self._open() as socket:
                await self._register(socket)
                await self._serve(socket)
        except (_Dropped, ProtocolError) as error:
            return str(error)
        except (aiohttp.ClientError, OSError) as error:
            return f"the connection failed: {error or type(error).__name__}"
        except Exception as error:
            # A worker that gave up here would get no jobs for the rest of its life.
            extra = log_fields("internal_error", **self.registration.ids)
            _logger.exception("%s: internal error of the worker", self.registration, extra=extra)
            return f"internal error of the worker: {error!r}"
        return "the server closed the connection"

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        token = self.signer.worker(time.time())
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._session.ws_connect(
                    self.registration.server.agent_url,
                    proxy=self.registration.server.proxy,
                    headers={"Authorization": f"Bearer {token}"},
                    heartbeat=HEARTBEAT,
                    max_msg_size=LARGEST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                )
        except TimeoutError:
            raise _Dropped(f"the server did not answer within {CONNECT_TIMEOUT:g} s") from None
        except aiohttp.ClientHttpProxyError as error:
            raise _Dropped(f"the HTTP proxy refused the connection with HTTP status {error.status}") from error
        except aiohttp.WSServerHandshakeError as error:
            raise _Dropped(_refusal(error)) from error

    async def _register(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(self._request)
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT):
                while not isinstance(answer := await _receive(socket), Registered):
                    if answer is not None:
                        raise _Dropped(f"the server sent {type(answer).__name__} before it had registered the worker")
        except TimeoutError:
            raise _Dropped(f"the server did not register the worker within {REGISTER_TIMEOUT:g} s") from None
        self.worker_id, self.response = answer.worker_id, answer.response
        self.registrations += 1
        self._registered_at = time.monotonic()
        extra = log_fields("livekit_registered", **self.registration.ids, worker_id=answer.worker_id)
        text = "%s: registered as %s (server %s)"
        _logger.info(text, self.registration, answer.worker_id, answer.server_version, extra=extra)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        queue = asyncio.Queue[bytes]()
        self._outbox = _Outbox(queue, asyncio.create_task(_write(socket, queue), name="greenroom-livekit-write"))
        try:
            self._change("registered", "registered")
            self._listener.registered(self)
            while True:
                message = await _receive(socket)
                if isinstance(message, GoneAway):
                    raise _Dropped(
                        f"the server requests a connection to another server: {message.reason or 'it stops'}"
                    )
                if message is not None:
                    self._listener.received(self, message)
        finally:
            writer, self._outbox = self._outbox.writer, None
            writer.cancel()
            self._listener.lost(self)
            await asyncio.wait([writer])

    def _change(self, state: ConnectionState, detail: str) -> None:
        self.state, self.detail = state, detail
        self._listener.state_changed(self)


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> ServerMessage | None:
    """Receive a message. Return ``None`` for a message of an unknown kind.

    Raises :class:`_Dropped` at the connection's end, and for a text frame: LiveKit answers binary frames with binary.
    """
    frame = await socket.receive()
    if frame.type is aiohttp.WSMsgType.BINARY:
        return livekit_protocol.parse(frame.data)
    if frame.type is aiohttp.WSMsgType.TEXT:
        raise _Dropped("the server sent a text frame, unlike a LiveKit server: check livekit_url (LIVEKIT_URL)")
    if frame.type is aiohttp.WSMsgType.ERROR:
        raise _Dropped(f"the connection broke: {socket.exception()}")
    raise _Dropped(f"the server closed the connection (code {socket.close_code})")


async def _write(socket: aiohttp.ClientWebSocketResponse, queue: asyncio.Queue[bytes]) -> None:
    while True:
        data = await queue.get()
        try:
            await socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError):
            return  # _receive gets an error, too, and reports the cause
        queue.task_done()


def _refusal(error: aiohttp.WSServerHandshakeError) -> str:
    if error.status == 401:
        return (
            "the server refused the API key (401): check livekit_api_key and livekit_api_secret "
            "(LIVEKIT_API_KEY, LIVEKIT_API_SECRET) against the server's keys, and this machine's clock"
        )
    if error.status == 404:
        return "the server has no worker endpoint (404): check host, port and path of livekit_url (LIVEKIT_URL)"
    return f"the server refused the connection with HTTP status {error.status}"
