"""An agent under livekit-agents' own worker: what Greenroom's is compared with."""

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

from rooms.livekit_server import LiveKitServer, die_with_parent
from support import DEADLINE, eventually

from greenroom.system import prctl, proc

__all__ = ["AGENTS", "StockWorker"]

AGENTS = Path(__file__).parent / "agents"


class StockWorker:
    """``python AGENT start ARGUMENTS`` for a server, in a process group of its own; killed at the end of the block."""

    def __init__(
        self,
        server: LiveKitServer,
        agent: Path,
        *arguments: str,
        agent_name: str = "",
        idle: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._agent = agent
        self._arguments = arguments
        more = {"LIVEKIT_AGENT_NAME": agent_name, "IDLE": str(idle), **(environment or {})}
        self._environment = {**os.environ, **server.environment, **more}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self._changed = asyncio.Condition()
        self._ended = False
        self.lines: list[str] = []

    async def __aenter__(self) -> StockWorker:
        prctl.set_child_subreaper()  # what it leaves behind comes to this process, to be found and reaped
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self._agent),
            "start",
            *self._arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            print("\n".join(self.lines))
        left = _family(self.pid)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading
        await eventually(lambda: not _remaining(left), "end of the worker's processes")

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    async def ready(self) -> None:
        """It is registered, and its first process is warm."""
        await self.logs("registered worker")
        await self.logs(r"process \d+ is set up")

    async def logs(self, pattern: str, *, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines of its log match, and return the last of these matches."""
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            found[:] = [match for line in self.lines if (match := re.search(pattern, line))]
            return len(found) >= count or self._ended

        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE * 2), self._changed:
                await self._changed.wait_for(is_there)
        assert len(found) >= count, f"{pattern!r} is not {count} times in the worker's log"
        return found[count - 1]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


def _family(pid: int) -> set[int]:
    return {pid}.union(*(_family(child) for child in proc.children(pid)))


def _remaining(pids: set[int]) -> list[int]:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
