"""The worker under attack: ``greenroom start`` in a folder of its own, on a free port."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from greenroom.system import prctl

from . import processes
from .worker_log import WorkerLog

STOP_SECONDS = 60.0
GRACE = 10.0
"""Seconds for what a killed worker has left to be ended by its zygote."""


class Worker:
    """Runs from ``start`` to ``stop``; leaves no process behind, and says which ones had to be killed."""

    def __init__(self, folder: Path, *, with_token: bool, max_jobs: int, idle: int, copy: Path | None) -> None:
        self.token = secrets.token_hex(16) if with_token else None
        self.mark = f"HOSTILE_RUN={secrets.token_hex(8)}"
        self.log: WorkerLog
        self._copy = copy
        self._folder = folder
        self._sizes = {"num-idle-processes": idle, "max-idle-processes": 2 * idle, "max-jobs": max_jobs}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    async def start(self) -> None:
        shutil.copy(Path(__file__).with_name("app.py"), self._folder / "agent.py")
        self._process = process = subprocess.Popen(
            [Path(sys.executable).with_name("greenroom"), "start", "agent.py", *self._options()],
            cwd=self._folder, env=self._environment(), bufsize=1 << 20,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            # However this process ends, the worker does too. Nothing else runs here yet, so the fork is safe.
            preexec_fn=prctl.set_parent_death_signal,  # noqa: PLW1509
        )  # fmt: skip
        assert process.stderr is not None
        self.log = WorkerLog(process.stderr, self._copy)
        self.url = await self._serves()

    def _options(self) -> list[str]:
        options = self._sizes | {"port": 0, "log-format": "json", "drain-timeout": 5, "shutdown-timeout": 5}
        return [text for name, value in options.items() for text in (f"--{name}", str(value))]

    def _environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        kept = {key: each for key, each in os.environ.items() if not key.startswith(("GREENROOM_", "LIVEKIT_"))}
        return kept | {name: value} | ({"GREENROOM_TOKEN": self.token} if self.token else {})

    async def _serves(self) -> str:
        async with asyncio.timeout(60):
            while self.ended is None:
                if self.log.url:
                    return self.log.url
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the worker ended with {self.ended}: {self.log.tail}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.poll()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def stop(self) -> int | None:
        """Tell it to end; returns its exit code, or None if it does not end in time."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self._wait(STOP_SECONDS)

    async def left(self) -> list[str]:
        """What it has started and left running, a moment after its end."""
        give_up = time.monotonic() + GRACE
        while (pids := processes.marked(self.mark)) and time.monotonic() < give_up:
            await asyncio.sleep(0.1)
        return [f"{pid} ({processes.command_of(pid)})" for pid in pids]

    async def kill(self) -> None:
        """Kill it and all that it has started, each by pid."""
        if self._process is None:
            return
        if self.ended is None:
            self.process.kill()
        await self._wait(STOP_SECONDS)
        for pid in processes.marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.log.close()

    async def _wait(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(self.process.wait, seconds)
        return None
