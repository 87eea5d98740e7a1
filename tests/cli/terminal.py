"""A command in a real pseudo-terminal, whose screen can be read and whose keys can be pressed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from contextlib import suppress
from types import TracebackType

import pyte
from support import DEADLINE

__all__ = ["Terminal"]


class Terminal:
    """Runs a command; ended by SIGKILL, if the test did not end it."""

    def __init__(self, *command: str, columns: int = 100, lines: int = 30, **environ: str) -> None:
        self._command = command
        self._environ = {**os.environ, "TERM": "xterm-256color", **environ}
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Condition()
        self._noting: set[asyncio.Task[None]] = set()
        self._process: asyncio.subprocess.Process
        self._ours: int
        self.raw = b""
        """All that the command has written."""

    async def __aenter__(self) -> Terminal:
        self._ours, its = pty.openpty()
        self.before = termios.tcgetattr(its)
        self._its = its  # kept open, so that the terminal's mode can be read after the command's end
        self.resize(self._screen.columns, self._screen.lines)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=its,
            stdout=its,
            stderr=its,
            env=self._environ,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.text)
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        await asyncio.gather(*self._noting)
        os.close(self._ours)
        os.close(self._its)

    @property
    def text(self) -> str:
        """What is on the screen, line by line, without the blanks at the lines' ends."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait until the screen shows this; ``^`` and ``$`` are the ends of a line."""
        return await self._until(pattern, wanted=True)

    async def shows_not(self, pattern: str) -> None:
        """Wait until it does not."""
        await self._until(pattern, wanted=False)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def fd(self) -> int:
        return self._ours

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def mode(self) -> list[object]:
        return list(termios.tcgetattr(self._its))

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()

    async def _until(self, pattern: str, *, wanted: bool) -> re.Match[str]:
        found: list[re.Match[str] | None] = []

        def is_so() -> bool:
            found[:] = [re.search(pattern, self.text, re.MULTILINE)]
            return (found[0] is not None) == wanted

        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(is_so)
        match = found[0]
        return match if match is not None else re.match("", "")  # type: ignore[return-value]

    def _read(self) -> None:
        with suppress(OSError):  # the command has ended
            data = os.read(self._ours, 65536)
            self.raw += data
            self._stream.feed(data)
            task = asyncio.create_task(self._notify())
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
