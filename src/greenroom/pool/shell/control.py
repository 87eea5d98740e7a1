"""Supervisor's end of a child's control channel."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable

from ...system import passed_fds
from ...wire import messages as m
from ...wire.frames import Frame, FrameDecoder, FrameError
from .transit import FREE, PATIENCE, Share, TransitMemory

__all__ = ["Control"]

_CHUNK = 64 * 1024
FROM_CHILD = m.Hello | m.Warm | m.PrewarmFailed | m.Answer | m.Started | m.Ending | m.Ended | m.CleaningUp


class Control:
    """Control channel, which sends without blocking, passes on each message, and reports a peer that sends nonsense.

    A large message is read when :class:`~greenroom.pool.shell.transit.TransitMemory` has room for it. ``on_wait`` is
    called with true at the beginning of that wait, and with false at its end. The room of a result is held until
    :meth:`close`, because the pool keeps the result until its process has ended.
    """

    def __init__(
        self,
        fd: int,
        transit: TransitMemory,
        on_message: Callable[[m.Message, bytes], object],
        on_nonsense: Callable[[str], object],
        on_wait: Callable[[bool], object],
    ) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)  # also where the program has set a default timeout
        self._transit = transit
        self._on_message = on_message
        self._on_nonsense = on_nonsense
        self._on_wait = on_wait
        self._decoder = FrameDecoder()
        self._share: Share | None = None
        """Room of the unfinished message, granted or requested."""
        self._kept: list[Share] = []
        self._unsent = deque[memoryview]()
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._is_paused = False
        self._is_writing = False

    def start(self) -> None:
        self._is_reading = True
        self._loop.add_reader(self._sock, self._read)

    def send(self, message: m.Message, body: bytes = b"") -> None:
        """Send a message. The part that does not fit into the socket's buffer is sent later."""
        self._unsent.append(memoryview(m.encode(message, body)))
        if len(self._unsent) == 1:
            self._write()

    def complain(self, complaint: str) -> None:
        """Report nonsense that the peer has sent over another channel."""
        self._on_nonsense(complaint)

    def finish(self) -> None:
        """Read the last bytes of a dead child, then close. The socket buffer bounds these bytes: no budget is used."""
        self._set_paused(False)
        # Count the bytes before: a descendant of the child may go on writing as fast as this process reads.
        left = self._unread()
        while left > 0 and self._is_reading and (count := self._read(ask=False)):
            left -= count
        self._close_socket()
        self._forget_unfinished()

    def close(self) -> None:
        """Close, and drop all references to the process: the process refers to this channel, which makes a cycle."""
        self._close_socket()
        self._forget_unfinished()
        for share in self._kept:
            self._transit.release(share)
        self._kept.clear()
        self._on_message = self._on_nonsense = self._on_wait = _drop

    def _forget_unfinished(self) -> None:
        """Free the memory of a message that will never be complete."""
        self._decoder = FrameDecoder()
        if self._share is not None:
            self._transit.release(self._share)
            self._share = None

    def _close_socket(self) -> None:
        if self._sock.fileno() != -1:
            self._stop_reading()
            self._wait_to_write(False)
            self._sock.detach()  # the fd belongs to the channels

    # --- writing ---------------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            while self._unsent:
                sent, message = self._sock.send(self._unsent[0]), self._unsent[0]
                if sent < len(message):
                    self._unsent[0] = message[sent:]
                else:
                    self._unsent.popleft()  # an empty slice of a memoryview would still keep the whole message
        except BlockingIOError:
            self._wait_to_write(True)
            return
        except OSError:
            # The child is dead or dying, and its pidfd reports that.
            self._unsent.clear()
        self._wait_to_write(False)

    def _wait_to_write(self, wait: bool) -> None:
        if wait and not self._is_writing:
            self._loop.add_writer(self._sock, self._write)
        elif self._is_writing and not wait:
            self._loop.remove_writer(self._sock)
        self._is_writing = wait

    # --- reading ---------------------------------------------------------------------------------

    def _unread(self) -> int:
        """Return the number of bytes that wait in the socket."""
        return int.from_bytes(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(4)), sys.byteorder)

    def _read(self, *, ask: bool = True) -> int:
        """Read once. Return the number of bytes."""
        try:
            data, has_fds = passed_fds.receive(self._sock.fileno(), _CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            data, has_fds = b"", False
        if not data:
            self._stop_reading()
            return 0
        try:
            for frame in self._decoder.feed(data):
                self._pass_on(frame)
            if has_fds:
                raise FrameError(passed_fds.COMPLAINT)
            self._look_ahead(ask)
        except FrameError as error:
            self._stop_reading()
            self._on_nonsense(str(error))
        return len(data)

    def _pass_on(self, frame: Frame) -> None:
        message = m.decode(frame, FROM_CHILD)  # before the share is moved: if this fails, the message is unfinished
        share, self._share = self._share, None
        if share is not None:
            share.is_complete = True
            self._kept.append(share)
        self._on_message(message, frame.body)
        # A share that is not granted here belongs to a dead child's last message, which the socket's buffer held.
        if share is not None and not (share.is_granted and isinstance(message, m.Ended)):
            self._kept.remove(share)
            self._transit.release(share)

    def _look_ahead(self, ask: bool) -> None:
        """Check the frame that has begun, and request room for a large one. Raises :class:`FrameError`."""
        prefix = self._decoder.unfinished
        if prefix is None or self._share is not None:
            return
        m.check(prefix, FROM_CHILD)
        if not ask or prefix.frame_size <= FREE:
            return
        self._share = self._transit.ask(prefix.frame_size, self._go_on, self._overdue)
        if not self._share.is_granted:
            self._loop.remove_reader(self._sock)
            self._set_paused(True)

    def _go_on(self) -> None:
        if self._is_paused:
            self._loop.add_reader(self._sock, self._read)
            self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        if paused != self._is_paused:
            self._is_paused = paused
            self._on_wait(paused)

    def _overdue(self) -> None:
        """Report a child that has stopped in the middle of a message, which holds up others."""
        self._stop_reading()
        size = 0 if self._share is None else self._share.size
        complaint = f"it left a message of {size} bytes unfinished for {PATIENCE:g} s"
        self._on_nonsense(f"{complaint}, while other jobs waited for the memory")

    def _stop_reading(self) -> None:
        if self._is_reading and not self._is_paused:
            self._loop.remove_reader(self._sock)
        self._is_reading = False
        self._set_paused(False)


def _drop(*_: object) -> None:
    """Do nothing, in place of a callback of the process."""
