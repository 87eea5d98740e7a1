"""One agent's connection to one LiveKit server: opened, registered, kept, and opened again, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Literal, Protocol

import aiohttp

from . import protocol
from .backoff import backoff
from .config import Registration
from .protocol import GoneAway, ProtocolError, Registered, ServerMessage
from .tokens import Signer

__all__ = ["Connection", "ConnectionState", "Listener"]

_logger = logging.getLogger("greenroom.livekit")

CONNECT_TIMEOUT = 10.0
REGISTER_TIMEOUT = 10.0
"""From our request until the server's answer."""
CLOSE_TIMEOUT = 2.0
HEARTBEAT = 15.0
"""A ping every so many seconds; without an answer within half of that, the connection is given up."""
STABLE = 10.0
"""A registration that lasted so long counts as a success: the next attempts begin with a short wait again."""
LARGEST_MESSAGE = 4 * 1024 * 1024

ConnectionState = Literal["connecting", "registered", "waiting", "closed"]


class Listener(Protocol):
    """Who is told. All of it within one turn of the event loop."""

    def registered(self, connection: Connection) -> None: ...
    def received(self, connection: Connection, message: ServerMessage) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def changed(self, connection: Connection) -> None: ...


class _Dropped(Exception):
    """The connection is over; the text says why."""


@dataclass
class _Outbox:
    """What is to be sent on one socket. It dies with the socket: nothing is sent on the next that was meant for it."""

    queue: asyncio.Queue[bytes]
    writer: asyncio.Task[None]


class Connection:
    """:meth:`run` ends only when it is cancelled."""

    def __init__(self, registration: Registration, session: aiohttp.ClientSession, listener: Listener) -> None:
        self.registration = registration
        self.signer = Signer(registration.server.api_key, registration.server.api_secret)
        self.state: ConnectionState = "connecting"
        self.detail = "not tried yet"
        self.worker_id = ""
        """As the server calls it; a new one for each connection."""
        self.registrations = 0
        self._session = session
        self._listener = listener
        self._outbox: _Outbox | None = None
        self._registered_at = 0.0
        self._request = protocol.register(
            registration.kind,
            registration.agent_name,
            registration.version,
            registration.permissions,
            registration.deployment,
        )

    def send(self, data: bytes) -> bool:
        """Send a message; false if there is no registration now: then it never will be."""
        if self._outbox is None:
            return False
        self._outbox.queue.put_nowait(data)
        return True

    async def run(self) -> None:
        """Stay registered. Failures are logged, and each is followed by another attempt."""
        attempt = 0
        while True:
            problem = await self._attempt()
            if self._registered_at and time.monotonic() - self._registered_at >= STABLE:
                attempt = 0
            self._registered_at = 0.0
            attempt += 1
            delay = backoff(attempt, random.random())
            _logger.warning("%s: %s; next attempt in %.1f s", self.registration, problem, delay)
            self._change("waiting", problem)
            await asyncio.sleep(delay)

    async def flush(self) -> None:
        """Wait until what was given to :meth:`send` is on its way, or the connection is gone."""
        outbox = self._outbox
        if outbox is not None:
            emptied = asyncio.create_task(outbox.queue.join())
            await asyncio.wait({emptied, outbox.writer}, timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            emptied.cancel()

    # --- one attempt -----------------------------------------------------------------------------

    async def _attempt(self) -> str:
        """Connect, register and serve; returns why it is over."""
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
            # A worker that gave up here would be deaf for the rest of its life.
            _logger.exception("%s: an error of the worker's own", self.registration)
            return f"an error of the worker's own: {error!r}"
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
        self.worker_id = answer.worker_id
        self.registrations += 1
        self._registered_at = time.monotonic()
        _logger.info("%s: registered as %s (server %s)", self.registration, answer.worker_id, answer.server_version)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        queue = asyncio.Queue[bytes]()
        self._outbox = _Outbox(queue, asyncio.create_task(_write(socket, queue), name="greenroom-livekit-write"))
        try:
            self._change("registered", "registered")
            self._listener.registered(self)
            while True:
                message = await _receive(socket)
                if isinstance(message, GoneAway):
                    raise _Dropped(f"the server asks its workers to connect elsewhere: {message.reason or 'it stops'}")
                if message is not None:
                    self._listener.received(self, message)
        finally:
            writer, self._outbox = self._outbox.writer, None
            writer.cancel()
            self._listener.lost(self)
            await asyncio.wait([writer])

    def _change(self, state: ConnectionState, detail: str) -> None:
        self.state, self.detail = state, detail
        self._listener.changed(self)


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> ServerMessage | None:
    """Raises :class:`_Dropped` at the end, and for whatever no LiveKit server sends to one that sends binary."""
    frame = await socket.receive()
    if frame.type is aiohttp.WSMsgType.BINARY:
        return protocol.parse(frame.data)
    if frame.type is aiohttp.WSMsgType.TEXT:
        raise _Dropped("the server sent a text frame; this protocol is binary: is it a LiveKit server?")
    if frame.type is aiohttp.WSMsgType.ERROR:
        raise _Dropped(f"the connection broke: {socket.exception()}")
    raise _Dropped(f"the server closed the connection (code {socket.close_code})")


async def _write(socket: aiohttp.ClientWebSocketResponse, queue: asyncio.Queue[bytes]) -> None:
    while True:
        data = await queue.get()
        try:
            await socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError):
            return  # the reader is told, too, and of the cause
        queue.task_done()


def _refusal(error: aiohttp.WSServerHandshakeError) -> str:
    if error.status == 401:
        return (
            "the server refused the API key (401): check livekit_api_key and livekit_api_secret "
            "(LIVEKIT_API_KEY, LIVEKIT_API_SECRET) against the server's keys, and this machine's clock"
        )
    if error.status == 404:
        return "there is no worker endpoint (404): check the host, the port and the path of livekit_url (LIVEKIT_URL)"
    return f"the server refused the connection with HTTP status {error.status}"
