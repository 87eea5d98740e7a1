"""Other programs that a test runs: what they print is waited for, and nothing of them is left at the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from support import DEADLINE, eventually

from greenroom.system import prctl, proc

__all__ = ["REPOSITORY", "Program"]

REPOSITORY = Path(__file__).parents[2]


class Program:
    """``async with Program("python", "-m", "this", environment={})``: it and its children end with the block."""

    def __init__(self, *command: str | Path, environment: Mapping[str, str]) -> None:
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self._changed = asyncio.Condition()
        self.lines: list[str] = []

    async def __aenter__(self) -> Program:
        prctl.set_child_subreaper()  # its orphans come to this process, to be found and reaped
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=REPOSITORY,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            print(f"$ {' '.join(self._command)}", *self.lines, sep="\n", file=sys.stderr)
        family = _family(self._process.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading
        await eventually(lambda: not _remaining(family), f"end of {self._command}")

    async def says(self, pattern: str, deadline: float = 2 * DEADLINE) -> re.Match[str]:
        """Wait until it has printed a line with this."""
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            found[:] = [match for line in self.lines if (match := re.search(pattern, line))]
            return bool(found) or self._reading.done()

        async with asyncio.timeout(deadline), self._changed:
            await self._changed.wait_for(is_there)
        assert found, f"it ended without {pattern!r}"
        return found[0]

    async def ends(self, deadline: float) -> int:
        async with asyncio.timeout(deadline):
            await self._reading
            return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


def _family(pid: int) -> set[int]:
    return {pid}.union(*(_family(child) for child in proc.children(pid)))


def _remaining(pids: set[int]) -> list[int]:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
