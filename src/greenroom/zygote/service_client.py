"""Service client: calls a service of the app from a job, with one connection for each call.

If a service dies before it has begun a call, the call goes to the next process. A call that was begun is never
repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..app_service import AppService
from ..errors import ErrorInfo, ServiceError
from ..system.peer import is_own_user
from ..wire.call_data import pack, unpack
from ..wire.frames import FrameError
from .service_line import ANSWER, CALL, LISTED, NOT_LOADED, RAISED, TAKEN, Line
from .services import address_of, addresses

__all__ = ["ServiceClient", "client_of"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
"""First and longest pause between two attempts to reach the service, in seconds."""


def client_of(
    services: Mapping[str, AppService], name: str, generation: int, timeout: float | None, caller: str
) -> ServiceClient:
    """Return a client. Raises :class:`ServiceError` if the app has no service of this name.

    ``timeout`` is in seconds; ``None`` stands for the service's own. Raises ``ValueError`` for a timeout that is not
    above 0.
    """
    service = services.get(name)
    if service is None:
        known = ", ".join(map(repr, sorted(services))) or "none"
        raise ServiceError(
            f"the app has no service {name!r} (there are: {known}). Register it by @app.service({name!r})",
            reason="unknown",
        )
    if timeout is None:
        timeout = service.timeout
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise ValueError(f"the timeout of a call is {timeout!r}; it must be a number of seconds above 0")
    return ServiceClient(name, generation, float(timeout), caller)


class ServiceClient:
    """Client of one service of the app, for any number of calls at the same time."""

    def __init__(self, name: str, generation: int, timeout: float, caller: str) -> None:
        self._name, self._generation = name, generation
        self._timeout, self._caller = timeout, caller

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the service, and return the answer. Cancellation withdraws the call.

        Raises :class:`ServiceError`, and :class:`PayloadError` for arguments that are not plain data or buffers.
        """
        # Packed now, so that later changes of the caller's data have no effect.
        return await self._answer(pack([arguments, named]))

    def call(self, *arguments: Any, **named: Any) -> Any:
        """Call the service from a thread without an event loop, and wait for the answer."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                f"call() would block the event loop that runs in this thread. Write: "
                f"await ctx.service({self._name!r})(...)"
            )
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self(*arguments, **named))
        finally:
            loop.close()

    async def _answer(self, parts: list[bytes]) -> Any:
        began = time.monotonic()
        terms = {"caller": self._caller, "began": began, "deadline": began + self._timeout}
        call = _Call()
        try:
            async with asyncio.timeout(self._timeout):
                for pause in _pauses():
                    call = _Call()
                    await self._connect(call)
                    try:
                        call.send(CALL, terms, parts)
                        return self._result(*await call.answer)
                    except EOFError:
                        if call.taken is not None:
                            raise self._died() from None
                    finally:
                        call.drop()
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise self._late(call) from None
        raise AssertionError("the pauses have no end")

    async def _connect(self, call: _Call) -> None:
        for pause in _pauses():
            sock = self._reach()
            if sock is not None:
                call.sock = sock
                try:
                    await asyncio.get_running_loop().create_unix_connection(lambda: call, sock=sock)
                except BaseException:
                    sock.close()
                    raise
                return
            await asyncio.sleep(pause)

    def _reach(self) -> socket.socket | None:
        with contextlib.suppress(BlockingIOError):  # the service listens, but its queue is full
            for address in self._addresses():
                sock = _connected(address)
                if sock is not None:
                    return sock
        return None

    def _addresses(self) -> Iterator[str]:
        """Yield the addresses at which the service may listen.

        The likely one comes first: a search takes longer than a call.
        """
        yield address_of(self._name, self._generation)
        yield from addresses(self._name, self._generation)

    def _result(self, kind: int, header: dict[str, Any], body: memoryview) -> Any:
        if kind == ANSWER:
            return unpack(header["sizes"], body)
        error = ErrorInfo(str(header.get("type")), str(header.get("message")))
        if kind == NOT_LOADED:
            raise ServiceError(
                f"the service {self._name!r} could not be loaded: {error}. It is loaded again after a pause; see the "
                f"worker's log",
                reason="not_loaded",
                error=error,
            )
        raise ServiceError(f"the service {self._name!r} raised {error}", reason="raised", error=error)

    def _died(self) -> ServiceError:
        return ServiceError(
            f"the service {self._name!r} died while it worked on this call. The call may have had effects, so it was "
            f"not repeated; see the worker's log for the cause of the death",
            reason="died",
        )

    def _late(self, call: _Call) -> ServiceError:
        within = f"within {self._timeout:g} s"
        if call.taken is not None:
            ran = time.monotonic() - call.taken
            text = f"the service {self._name!r} did not answer {within}: it worked on this call for {ran:.1f} s"
            return ServiceError(text, reason="timeout")
        if call.is_listed:
            text = (
                f"the service {self._name!r} is busy: it did not begin this call {within}. Raise its concurrency, "
                f"or the timeout of the call"
            )
            return ServiceError(text, reason="busy")
        text = f"the service {self._name!r} was not ready {within}: it loads, or is started again; see the worker's log"
        return ServiceError(text, reason="not_ready")


class _Call(Line):
    """One call on one connection."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[tuple[int, dict[str, Any], memoryview]] = asyncio.get_running_loop().create_future()
        self.is_listed = False
        self.taken: float | None = None
        """Time at which the service began this call, on the monotonic clock; ``None`` before."""
        self.sock: socket.socket
        """Socket of the connection."""

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # the socket is closed
            self.sock.shutdown(socket.SHUT_RDWR)  # close() is not enough if a fork has the socket as well
        super().drop()

    def on_frame(self, kind: int, header: dict[str, Any], body: memoryview) -> None:
        if kind == LISTED:
            self.is_listed = True
        elif kind == TAKEN:
            self.taken = time.monotonic()
        elif kind in (ANSWER, RAISED, NOT_LOADED) and not self.answer.done():
            self.answer.set_result((kind, header, body))
        else:
            raise FrameError(f"a frame of kind {kind}")

    def on_lost(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(EOFError())
            self.answer.exception()  # marks the error as seen, since no task may wait for it


def _pauses() -> Iterator[float]:
    """Yield the pauses between attempts, in seconds, without end."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _connected(address: str) -> socket.socket | None:
    """Return a connection to the service; ``None`` if it does not listen there, or belongs to another user.

    Raises ``BlockingIOError`` if its queue is full.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    failure = sock.connect_ex(address)
    if failure == 0 and is_own_user(sock):
        return sock
    sock.close()
    if failure == errno.EAGAIN:
        raise BlockingIOError
    return None
