"""The two processes beside the main one: started with settings, ended by the end of their standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

LINE_LIMIT = 1 << 20


class Helper:
    """``python -m MODULE``, which gets one line of JSON and answers with lines of JSON."""

    def __init__(self, module: str, settings: dict[str, Any]) -> None:
        self._module = module
        self._settings = settings
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_LIMIT,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield its reports, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield json.loads(line)

    def finish(self) -> None:
        """Ask it to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def end(self, seconds: float) -> None:
        """Wait for its end; kill it when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
