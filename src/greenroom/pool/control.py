"""The supervisor's end of a child's control channel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from ..wire import messages as m
from ..wire.frames import FrameDecoder, FrameError

__all__ = ["Control"]

_CHUNK = 64 * 1024
FROM_CHILD = m.Hello | m.Warm | m.PrewarmFailed | m.Answer | m.Started | m.Ended | m.CleaningUp


class Control:
    """Sends without blocking, and passes on each message; a peer that sends nonsense is reported."""

    def __init__(
        self,
        fd: int,
        on_message: Callable[[m.Message, bytes], object],
        on_nonsense: Callable[[str], object],
    ) -> None:
        self._sock = socket.socket(fileno=fd)
        self._on_message = on_message
        self._on_nonsense = on_nonsense
        self._decoder = FrameDecoder()
        self._unsent = memoryview(b"")
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._is_writing = False

    def start(self) -> None:
        self._is_reading = True
        self._loop.add_reader(self._sock, self._read)

    def send(self, message: m.Message, body: bytes = b"") -> None:
        """Send a message; what does not fit into the socket's buffer now follows when it does."""
        data = m.encode(message, body)
        if self._unsent:
            data = bytes(self._unsent) + data
        self._unsent = memoryview(data)
        self._write()

    def finish(self) -> None:
        """Read what a dead child had sent; then close."""
        while self._is_reading and self._read():
            continue
        self.close()

    def close(self) -> None:
        if self._sock.fileno() != -1:
            self._stop_reading()
            self._wait_to_write(False)
            self._sock.detach()  # the fd belongs to the channels

    def _write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            self._unsent = memoryview(b"")  # an empty slice would still hold all that it was cut from
        except BlockingIOError:
            self._wait_to_write(True)
            return
        except OSError:
            # The child is dead or dying, which is told by its pidfd, with the cause.
            self._unsent = memoryview(b"")
        self._wait_to_write(False)

    def _wait_to_write(self, wait: bool) -> None:
        if wait and not self._is_writing:
            self._loop.add_writer(self._sock, self._write)
        elif self._is_writing and not wait:
            self._loop.remove_writer(self._sock)
        self._is_writing = wait

    def _read(self) -> bool:
        """Read once; false when there is no more."""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._stop_reading()
            return False
        try:
            for frame in self._decoder.feed(data):
                self._on_message(m.decode(frame, FROM_CHILD), frame.body)
        except FrameError as error:
            self._stop_reading()
            self._on_nonsense(str(error))
        return self._is_reading

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._loop.remove_reader(self._sock)
        self._is_reading = False
