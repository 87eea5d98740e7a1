"""The worker: `greenroom start` for the agent, as a process of its own, and what it logs."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .options import AGENT, DemoOptions

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_URL = re.compile(r"https?://[\w.\[\]:]+:\d+")

START_SECONDS = 60.0
STOP_SECONDS = 15.0


class WorkerFailed(Exception):
    """It did not start, or ended by itself."""


class Worker:
    """A running worker."""

    def __init__(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=15)
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, options: DemoOptions, on_line: Callable[[str], None]) -> Worker:
        """Start it; `on_line` gets each line that it logs. :meth:`url` tells when it can be spoken to."""
        process = await asyncio.create_subprocess_exec(
            *_command(options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            env=os.environ | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            process_group=0,  # Ctrl-C reaches the demo alone, which then ends the worker
            preexec_fn=_end_with_the_demo,
        )
        return cls(process, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def url(self) -> str:
        """Where its API is, once it has said so. Raises :class:`WorkerFailed`."""
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.shield(self._url)
        except TimeoutError:
            raise self.failure(f"it did not start within {START_SECONDS:g} s") from None

    def failure(self, what: str) -> WorkerFailed:
        """An error that tells what it said last."""
        return WorkerFailed("\n  ".join([f"the worker failed: {what}. Its last lines:", *self._last_lines]))

    async def stop(self, *, at_once: bool) -> int:
        """Have it end, with its calls or after them; returns its exit code, as `subprocess` counts."""
        try:
            for _ in range(2 if at_once else 1):
                self._signal(signal.SIGTERM)
                await asyncio.sleep(0.05)  # two signals at the same moment would be one
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)  # only if it is still there
            await self._process.wait()
            await self._reading
        return self._process.returncode or 0

    def _signal(self, signum: int) -> None:
        if not self.has_ended:
            self._process.send_signal(signum)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._last_lines.append(line)
            if not self._url.done() and (found := _URL.search(line)):
                self._url.set_result(found[0])
            self._on_line(line)
        if not self._url.done():
            self._url.set_exception(self.failure(f"it ended with exit code {await self._process.wait()}"))
            self._url.exception()  # marked as seen: nobody need be waiting


def _end_with_the_demo() -> None:
    """In the worker, before it is one: the kernel kills it if the demo is killed, and Greenroom sees to the rest."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(options: DemoOptions) -> list[str]:
    settings = {
        "port": 0,  # a free one, which the log tells
        "num-idle-processes": options.idle,
        "max-jobs": max(100, options.calls),
        "launch-timeout": 60,  # a burst of many calls on a small machine takes its time
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [str(Path(sys.executable).with_name("greenroom")), "start", str(AGENT), *flags]
