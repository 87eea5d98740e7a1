"""Single keys from a terminal, without the return key."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["KeyDecoder", "reading_keys"]

_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x15": "ctrl-u",
}
_KEY = re.compile(r"\x1b\[[0-9;]*[@-~]|\x1bO.|.", re.DOTALL)
_BEGUN = re.compile(r"\x1b(\[[0-9;]*|O)\Z")


class KeyDecoder:
    """Decoder that names the keys in a terminal's bytes. The beginning of a sequence waits for the rest. Pure.

    A character is its own name.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> list[str]:
        text = self._rest + self._decoder.decode(data)
        begun = _BEGUN.search(text)
        self._rest = "" if begun is None else begun[0]
        whole = text[: len(text) - len(self._rest)]
        return [_NAMES.get(key, key) for key in _KEY.findall(whole)]


@contextmanager
def reading_keys(fd: int, press: Callable[[str], None]) -> Iterator[None]:
    """Call ``press`` for each key. An fd that is no terminal gives no keys.

    Ctrl-C still sends SIGINT. Ctrl-Z does nothing, since a stopped program would leave its view on the terminal.
    """
    if not os.isatty(fd):
        yield
        return
    saved, loop, decoder = termios.tcgetattr(fd), asyncio.get_running_loop(), KeyDecoder()

    def read() -> None:
        try:
            data = os.read(fd, 1024)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            loop.remove_reader(fd)
        for key in decoder.feed(data):
            press(key)

    tty.setcbreak(fd)
    _disable_suspending(fd)
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        # TCSAFLUSH discards keys that were typed but not read, since they were not meant for the shell.
        termios.tcsetattr(fd, termios.TCSAFLUSH, saved)


def _disable_suspending(fd: int) -> None:
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VSUSP] = b"\x00"
    termios.tcsetattr(fd, termios.TCSADRAIN, attributes)
