"""One connection: aiohttp's protocol with bounds, and with the API's form for the errors that aiohttp itself answers.

This module, ``half_closed``, ``bodies``, ``answers`` and ``app`` use undocumented names of aiohttp.
``test_aiohttp_contract`` fails if one of these names changes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler

from ...clean_text import ascii_only
from ...log_fields import log_fields
from .answer_marks import AnswerMarks
from .answers import LargeAnswers
from .arrivals import Arrivals
from .bodies import BODY_RATE, BODY_SECONDS, refuse_expectation, refuse_packed, size_on_the_wire
from .body_clock import BodyClock
from .connections import Crowd, HeldBytes
from .errors import error_response, routing_error
from .half_closed import HalfClosable, HalfClosed
from .schema import ApiError
from .tls import IS_CERTIFIED, bound_buffers, has_certificate, is_encrypted
from .turns import PIECE, Turns

__all__ = ["Connection"]

_logger = logging.getLogger("greenroom")

IDLE_CONNECTION = 75.0
"""Seconds that a connection may take for its first request with all headers, or may be idle between two requests."""
SLOWEST_READER = 30.0
"""Seconds that a client may take to read the next part of its answer. A part is 128 KiB or less, or an event of a
stream."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
"""Seconds for which, and bytes up to which, an unwanted body is read and dropped. If the connection were closed at
once, it would be reset, and the answer would be lost."""
_READ_BUFFER = 64 * 1024
"""Bytes of a body that may wait for their reader. aiohttp pauses at twice this number."""
_LONGEST_START = 16 * 1024
"""Bytes of a refused request that are still parsed, to find its headers."""
_MOST_AHEAD = 64 * 1024
"""Bytes that may wait behind a request that takes long. With more, the connection may be closed if memory is needed."""


class Connection(HalfClosable):
    """Connection that parses a client's requests in turns, has them answered in order, and keeps the limits.

    The connection itself answers data that is not HTTP, an encoded body, an unknown ``Expect``, and a late body.
    """

    __slots__ = (
        "_answers",
        "_arrivals",
        "_clock",
        "_crowd",
        "_held",
        "_is_after_request",
        "_is_certified",
        "_is_encrypted",
        "_is_evicted",
        "_is_receiving",
        "_last_size",
        "_marks",
        "_our_loop",
        "_piece",
        "_present",
        "_refusal",
        "_sock",
        "_turns",
        "_wire",
        "_write_clock",
        "network",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        network: str,
        sock: socket.socket,
        arrivals: Arrivals,
        crowd: Crowd,
        held: HeldBytes,
        answers: LargeAnswers,
        turns: Turns,
        half_closed: set[HalfClosed],
        marks: AnswerMarks,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # None switches the access log off, although its type excludes None.
        quiet: Any = None
        super().__init__(
            manager,
            half_closed=half_closed,
            loop=loop,
            access_log=quiet,
            keepalive_timeout=IDLE_CONNECTION,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            lingering_time=0.0,  # _linger does this, within bounds
        )
        self.network = network
        self._sock = sock
        self._arrivals = arrivals
        self._our_loop = loop
        self._marks = marks
        self._crowd, self._held, self._answers, self._turns = crowd, held, answers, turns
        self._piece = b""
        """Bytes that wait for their turn to be parsed. Nothing is read from the socket meanwhile."""
        self._wire: asyncio.Transport | None = None
        self._is_evicted = False
        self._is_encrypted = self._is_certified = False
        self._present: web.BaseRequest | None = None
        self._clock = BodyClock(loop)
        self._refusal: ApiError | None = None
        self._is_receiving = False
        self._is_after_request = False
        self._last_size = 0
        self._write_clock: asyncio.TimerHandle | None = None

    # --- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._is_encrypted, self._is_certified = is_encrypted(transport), has_certificate(transport)
        if self._is_encrypted:
            bound_buffers(transport)
        else:
            # Writing pauses if the kernel does not take all bytes. So a sent answer has left this process.
            transport.set_write_buffer_limits(high=0)
            transport.max_size = PIECE  # type: ignore[attr-defined]  # the most bytes that asyncio reads at a time
        if self._is_evicted:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._crowd.remove(self)
        self._held.drop(self)
        self._turns.forget(self)
        self._piece = b""
        self._stop_write_clock()
        self._present = None
        super().connection_lost(exc)
        self._messages.clear()  # each refers to this connection, in a cycle that would last until a garbage collection

    def evict(self) -> None:
        """Close the connection.

        Bytes that the client has not read are dropped, because they would keep the connection open.
        """
        self._is_evicted = True
        if self._wire is None:
            with suppress(OSError):  # the client has gone meanwhile
                self._sock.shutdown(socket.SHUT_RDWR)  # it is still being opened: a TLS handshake takes a while
        elif self._is_encrypted or self._wire.get_write_buffer_size():
            self._wire.abort()
        else:
            self._wire.close()

    # --- incoming data ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return  # no handler will read the data
        if data and self._wire is not None and self._wire.is_closing():
            return  # TLS still delivers what came before the client's goodbye
        if data:
            self._arrivals.came()
            data = self._count(data)
            if self._clock.is_overdue:
                self._clock.stop()  # the loop was blocked: these bytes may have come in time
            if self._piece or len(data) > PIECE or not self._turns.now():
                self._wait_for_turn(data)
                return
        # aiohttp calls this without data when the reader has taken some bytes. The parser then goes on with the rest.
        begin = time.perf_counter()
        self._parse(data)
        self._turns.spend(begin)

    def _wait_for_turn(self, data: bytes) -> None:
        assert self._wire is not None  # the transport has brought the data
        if not self._piece:
            self._turns.wait(self, len(data))
            self._clock.stop()
        self._piece += data
        self._wire.pause_reading()

    def parse_piece(self) -> None:
        """Parse the bytes that waited for their turn, and read on."""
        data, self._piece = self._piece[:PIECE], self._piece[PIECE:]
        self._clock.go_on()
        if self._wire is None or self._wire.is_closing():
            self._piece = b""
            return
        try:
            self._parse(data)
        except Exception:
            _logger.exception("the bytes of a client could not be parsed", extra=log_fields("internal_error"))
            self._wire.abort()
            return
        if self._piece:  # TLS delivers more than a piece at a time
            self._turns.wait(self, len(self._piece))
            self._clock.stop()
        else:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        """Read on, unless aiohttp's reader or its queue of requests is full, or a piece waits for its turn."""
        if not (self._reading_paused or self._buffer_paused or self._piece):
            super()._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, if reading was paused.

        aiohttp calls this for every chunk that its reader takes. Without the check, aiohttp would parse each time.
        """
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _parse(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._clock.is_running and self._present is not None:
            self._note_progress(self._present, is_broken=self._request_count > before)

    def _count(self, data: bytes) -> bytes:
        """Count the bytes that are held now. Return the bytes that are to be parsed."""
        if self._is_after_request and self._present is None:
            # All earlier requests are answered, so at most the end of the latest piece is still held.
            self._held.at_most(self, self._last_size)
            self._is_after_request = False
        self._last_size = len(data)
        self._is_receiving = True
        self._held.add(self, len(data))
        self._is_receiving = False
        return data if self._refusal is None else data[:_LONGEST_START]

    def _note_progress(self, request: web.BaseRequest, *, is_broken: bool) -> None:
        if request.content.is_eof():
            return  # the clock has stopped
        if is_broken:
            # The parser has added another message, which is an error: this body will never be complete.
            self._refuse(ApiError(400, "bad_body", "the body cannot be read: its framing does not match its headers"))
        else:
            self._clock.note(request.content.total_bytes)

    @property
    def may_be_refused(self) -> bool:
        if self._present is None or self._clock.is_running:
            return True
        return self._held.of(self) - size_on_the_wire(self._present) > _MOST_AHEAD

    def refuse(self) -> None:
        """Take no more bytes in, because memory is needed."""
        message = "the worker holds too many unfinished bodies. Send the request again later."
        self._refuse(ApiError(503, "too_many_bodies", message, retry_after=2.0))

    def _refuse(self, error: ApiError) -> None:
        """Take no more bytes in. Answer a request that is not complete with this error, else close the connection."""
        self._refusal = error
        if self._clock.is_running:
            self._clock.expire()
        elif self._present is None and self._is_receiving:
            self._our_loop.call_later(LINGER_SECONDS, self._cut_without_request)
        elif self._wire is not None:
            self._wire.abort()

    def _cut_without_request(self) -> None:
        if self._present is None and self._wire is not None:
            self._wire.abort()

    # --- a request -------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        """Return the answer to a request. If its body is not complete in time, its handler is cancelled."""
        self._present = request
        self._arrivals.mark(request)
        request[IS_CERTIFIED] = self._is_certified
        self._crowd.busy(self)
        refuse_packed(request)
        refuse_expectation(request)
        if self._refusal is not None:
            return error_response(self._refusal)  # a raised error would keep all frames and bodies for a while
        if request.content.is_eof():
            return await handler(request)  # type: ignore[arg-type]
        return await self._serve_unfinished(request, handler)

    async def _serve_unfinished(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        timeout = self._clock.timeout(is_stopped=bool(self._piece))
        try:
            async with timeout:
                self._clock.run(timeout)
                request.content.on_eof(partial(self._clock.finish, timeout))
                return await handler(request)  # type: ignore[arg-type]
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            self._clock.end()
        return self._late(request)

    def _late(self, request: web.BaseRequest) -> web.Response:
        if self._refusal is None:
            message = f"the body was not complete in time: {BODY_SECONDS:g} s, and 1 s for each {BODY_RATE} bytes"
            self._refusal = ApiError(408, "body_timeout", message)
        if request.writer.output_size == 0:
            return error_response(self._refusal)
        if self._wire is not None:
            self._wire.abort()  # the answer has begun, and cannot be replaced now
        raise ConnectionResetError("a client did not complete its body")

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = error_response(routing_error(request, resp))
        if not resp.prepared:
            self._marks.put(resp)
        is_unread = not request.content.is_eof()
        if self._refusal is not None or (is_unread and not _may_end_soon(request)):
            resp.force_close()
        with self._answers.sending(resp) as resp:
            resp, is_lost = await super().finish_response(request, resp, start_time)
        self._end(request)
        if is_unread and not is_lost:
            await self._linger(request.content, is_last=not resp.keep_alive)
        return resp, is_lost

    def _end(self, request: web.BaseRequest) -> None:
        self._present = None
        self._is_after_request = True
        self._arrivals.answered(may_have_more=bool(self._messages or self._piece) or self._last_size >= PIECE)
        self._held.release(self, size_on_the_wire(request))
        self._crowd.idle(self)

    async def _linger(self, body: StreamReader, *, is_last: bool) -> None:
        """Read and drop the rest of a body, until the client has its answer.

        aiohttp closes the connection afterwards, if the body is still not complete.
        """
        known, most = body.total_bytes, body.total_bytes + LINGER_BYTES
        with suppress(TimeoutError, OSError, web.RequestPayloadError):
            if is_last and self.transport is not None and self.transport.can_write_eof():  # TLS cannot
                self.transport.write_eof()
            async with asyncio.timeout(LINGER_SECONDS):
                while known < most and self.transport is not None and not body.is_eof():
                    await body.readany()
                    self._held.release(self, body.total_bytes - known)
                    known = body.total_bytes

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs the error, and raises if it is too late to answer
        if exc is not None:
            exc.__traceback__ = None  # else a cycle would keep the parsed bytes until a garbage collection
        kind = "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
        # The message quotes the client's bytes in several lines, with a mark below the wrong byte.
        text = " ".join((message or HTTPStatus(status).description or HTTPStatus(status).phrase).split())
        response = error_response(ApiError(status, kind, ascii_only(text)))
        self._marks.put(response)
        response.force_close()
        return response

    # --- outgoing data ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        assert self._wire is not None  # the transport calls this
        self._crowd.stuck(self, self._our_loop.time())
        self._write_clock = self._our_loop.call_later(SLOWEST_READER, self._wire.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._crowd.moving(self)
        self._stop_write_clock()

    def _stop_write_clock(self) -> None:
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None


def _may_end_soon(request: web.BaseRequest) -> bool:
    """Return true if the unread rest of a body is small enough to wait for."""
    length = request.headers.get("Content-Length", "")
    is_small = length.isdecimal() and int(length) <= LINGER_BYTES
    return is_small and "Expect" not in request.headers
