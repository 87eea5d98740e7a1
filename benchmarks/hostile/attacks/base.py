"""An attack: a name, a sentence, and what it does in one turn."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from ..target import Target


class Turn:
    """The time that an attack has for one strike. It is over at a time, or when the whole run is."""

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self._end = time.monotonic() + seconds
        self._stop = stop

    @property
    def left(self) -> float:
        return 0.0 if self._stop.is_set() else max(0.0, self._end - time.monotonic())

    def wait(self, seconds: float) -> None:
        self._stop.wait(min(seconds, self.left))

    def rest(self) -> None:
        """Wait until it is over."""
        self.wait(self.left)

    def times(self, per_second: float, limit: int = 1_000_000) -> Iterator[int]:
        """Count up to a limit, so many times a second, until the turn is over. The first time is certain."""
        begin = time.monotonic()
        for number in range(limit):
            self.wait(begin + number / per_second - time.monotonic())
            if number and not self.left:
                return
            yield number


class Attack:
    """One kind of hostile traffic. An instance lives for the whole run and counts what it did."""

    name = ""
    about = ""
    by_default = True

    def __init__(self, target: Target) -> None:
        self.target = target
        self.count: Counter[str] = Counter()

    def strike(self, turn: Turn) -> None:
        """Attack until the turn is over."""
        raise NotImplementedError

    # --- what several attacks do -----------------------------------------------------------------

    def open(self, stack: ExitStack, timeout: float = 5.0) -> socket.socket | None:
        """Open a connection that is closed with the turn; None if the worker refuses it."""
        try:
            sock = stack.enter_context(self.target.connect(timeout))
        except OSError as error:
            self.count[f"refused ({type(error).__name__})"] += 1
            return None
        self.count["connections"] += 1
        return sock

    def send(self, sock: socket.socket, data: bytes) -> bool:
        """Send; returns whether the worker still takes it."""
        try:
            sock.sendall(data)
        except OSError:
            self.count["cut"] += 1
            return False
        return True

    def status(self, sock: socket.socket, seconds: float) -> None:
        """Count what the worker answers: its status, or that there was none."""
        sock.settimeout(max(0.1, seconds))
        line = b""
        with suppress(OSError):
            line = sock.recv(4096)
        parts = line.split(b" ", 2)
        status = parts[1].decode(errors="replace")[:3] if line.startswith(b"HTTP/") and len(parts) > 1 else "none"
        self.count[f"answer {status}"] += 1

    def exchange(self, data: bytes, seconds: float = 5.0) -> None:
        """Send one request on a connection of its own, and count the answer."""
        with ExitStack() as stack:
            sock = self.open(stack)
            if sock is not None:
                self.send(sock, data)  # where it was cut, the answer may still be there
                self.status(sock, seconds)
