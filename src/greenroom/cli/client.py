"""Client of the worker's HTTP API, for the commands. No other module of this folder uses the HTTP library."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
from yarl import URL

from .. import __version__
from ..command_exit_codes import ExitCode
from ..worker_header import WORKER_HEADER
from .printing import Failure
from .text import harmless

__all__ = ["ANSWER_SECONDS", "Answer", "Client", "Event", "Refused", "Unreachable"]

ANSWER_SECONDS = 15.0
"""Longest wait for an answer to a request that the worker answers at once."""
_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 10.0
"""Longest silence of a stream. A stream of events has an event every second."""


class Answer(NamedTuple):
    status: int
    body: Any


class Event(NamedTuple):
    name: str
    data: Any


class Unreachable(Failure):
    """Failure: no worker answered. ``cause`` is the cause without the address."""

    def __init__(self, message: str, cause: str, *, was_sent: bool = True) -> None:
        super().__init__(message, ExitCode.UNREACHABLE, f"no answer: {cause}")
        self.cause = cause
        self.was_sent = was_sent
        """False if the request has surely reached no worker."""


class Refused(Failure):
    """Failure: the worker refused the request. ``type`` and ``reason`` come from the API's error."""

    def __init__(self, message: str, status: int, type: str = "", reason: str | None = None) -> None:
        super().__init__(message, _CODES.get(status, ExitCode.NEGATIVE))
        self.status = status
        self.type = type
        self.reason = reason


_REJECTIONS = ("no_capacity", "rejected")
_CODES = {400: ExitCode.USAGE, 401: ExitCode.UNAUTHORIZED}


class Client:
    """Client of one worker, as an async context manager.

    Failures are :class:`Unreachable` or :class:`Refused`. A command catches only those that the command can handle.
    """

    def __init__(self, url: str, token: str | None, new_token: Callable[[], str | None] | None = None) -> None:
        """Prepare a client. ``new_token`` asks the worker for its token, and blocks; a new start has a new token."""
        self.url = url
        self.worker: str | None = None
        """Name of the worker; ``None`` before its first answer."""
        self._token = token
        self._new_token = new_token
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": f"greenroom/{__version__}"}
        self._session = aiohttp.ClientSession(headers=headers, middlewares=[self._authorized])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None, **options: Any) -> Answer:
        return await self._ask("GET", path, query, **options)

    async def head(self, path: str) -> int:
        """Return the status of the answer to a HEAD request. The answer has no body, and so no error message."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        with self._translated(ANSWER_SECONDS):
            async with self._session.head(self._address(path), timeout=timeout, allow_redirects=False) as response:
                self._note(response)
                return response.status

    async def delete(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        return await self._ask("DELETE", path, query)

    async def post(self, path: str, body: Mapping[str, Any], *, within: float = ANSWER_SECONDS) -> Answer:
        return await self._ask("POST", path, None, within=within, body=msgspec.json.encode(body))

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events of ``/v1/events`` until the worker ends the stream."""
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        with self._translated(_SILENCE_SECONDS):
            async with self._session.get(
                self._address("/v1/events"), timeout=timeout, allow_redirects=False
            ) as response:
                self._note(response)
                if response.status != 200:
                    self._judged(response.status, await response.read(), ())
                # Not line by line: the first event can be longer than aiohttp's limit for a line.
                rest = b""
                async for chunk in response.content.iter_any():
                    *frames, rest = (rest + chunk).split(b"\n\n")
                    for frame in frames:
                        yield _event(frame)

    async def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a long answer as they arrive."""
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        with self._translated(_SILENCE_SECONDS):
            async with self._session.get(self._address(path), timeout=timeout, allow_redirects=False) as response:
                self._note(response)
                if response.status != 200:
                    self._judged(response.status, await response.read(), ())
                async for chunk in response.content.iter_any():
                    yield chunk

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        *,
        within: float = ANSWER_SECONDS,
        body: bytes | None = None,
        accepted: tuple[int, ...] = (),
    ) -> Answer:
        """Send a request and return the answer.

        ``within`` is the longest wait in seconds. An error status that is in ``accepted`` is an answer, too.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=within, sock_connect=_CONNECT_SECONDS)
        with self._translated(within):
            async with self._session.request(
                method, self._address(path, query), headers=headers, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                self._note(response)
                return self._judged(response.status, await response.read(), accepted)

    async def _authorized(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request with the token. If the worker has started anew, send it again with the new token."""
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        response = await handler(request)
        if response.status == 401 and self._new_token is not None:
            token = await asyncio.to_thread(self._new_token)
            if token not in (None, self._token):
                self._token = token
                response.release()
                request.headers["Authorization"] = f"Bearer {token}"
                response = await handler(request)
        return response

    def _address(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        return URL(self.url + path, encoded=True).with_query(query)

    def _note(self, response: aiohttp.ClientResponse) -> None:
        self.worker = response.headers.get(WORKER_HEADER, self.worker)

    def _judged(self, status: int, body: bytes, accepted: tuple[int, ...]) -> Answer:
        try:
            decoded = msgspec.json.decode(body)
            if status < 300 or status in accepted:
                return Answer(status, decoded)
            error = decoded["error"]
            message, type, reason = error["message"], error["type"], error.get("reason")
        except (msgspec.DecodeError, TypeError, KeyError, AttributeError):
            raise Unreachable(
                f"{self.url} is not a Greenroom worker (HTTP {status}). Set the address of the worker with --url or "
                f"GREENROOM_URL",
                f"this is not a Greenroom worker (HTTP {status})",
            ) from None
        if status == 401:
            message = self._unauthorized()
        elif type in _REJECTIONS:
            message = f"rejected ({reason}): {message}"
        elif type == "other_worker":
            message = f"{message}. Set the address of that worker with --url or GREENROOM_URL"
        raise Refused(harmless(message), status, type, reason)

    def _unauthorized(self) -> str:
        if self._token is None:
            text = (
                "needs a token, and gives this command none: it runs as another user or elsewhere, or a session has "
                "started this command. Set GREENROOM_TOKEN to its token, or GREENROOM_TOKEN_FILE to the token's file"
            )
        else:
            text = "does not accept this token. Check GREENROOM_TOKEN, --token or the token file"
        return f"the worker at {self.url} {text}"

    @contextmanager
    def _translated(self, within: float) -> Iterator[None]:
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise self._not_connected(f"no connection within {_CONNECT_SECONDS:g} s") from None
        except TimeoutError:
            message = f"the worker at {self.url} accepted the connection, but did not answer within {within:g} s. "
            cause = f"it accepted the connection, and was silent for {within:g} s"
            raise Unreachable(f"{message}The worker may be stopped or overloaded. See its log", cause) from None
        except aiohttp.ClientConnectorError as error:
            raise self._not_connected(_cause(error)) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            cause = f"{error or type(error).__name__}"
            message = f"the connection to the worker at {self.url} was lost: {cause}. "
            cause = f"the connection was lost: {cause}"
            raise Unreachable(f"{message}The worker may have ended. See its log", cause) from None

    def _not_connected(self, cause: str) -> Unreachable:
        message = (
            f"no worker answered at {self.url}: {cause}. Start a worker with `greenroom start APP`, or set the "
            f"address of a running worker with --url or GREENROOM_URL"
        )
        return Unreachable(message, cause, was_sent=False)


def _cause(error: aiohttp.ClientConnectorError) -> str:
    """Return the cause in words. The library's own message repeats the address."""
    failure = error.os_error
    if isinstance(failure, ssl.SSLCertVerificationError):
        text = f"its certificate is not trusted ({failure.verify_message})"
        return f"{text}. The variable SSL_CERT_FILE names the file of an authority to trust"
    if isinstance(error, aiohttp.ClientConnectorDNSError) or not failure.errno:
        return str(failure.strerror or failure)
    return os.strerror(failure.errno).lower()


def _event(frame: bytes) -> Event:
    name, data = "message", b"null"
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data = value
    return Event(name, msgspec.json.decode(data))
