"""The worker's HTTP API, as far as the demo needs it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import aiohttp


class TurnedDown(Exception):
    """The worker has answered a request with an error."""


class WorkerApi:
    """A client of one worker."""

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=0),  # all calls are placed at once
            timeout=aiohttp.ClientTimeout(total=90),
        )

    async def __aenter__(self) -> WorkerApi:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def place(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Start a call; the answer comes when its process has acknowledged it."""
        return await self._ask("POST", "/v1/jobs", {"metadata": metadata})

    async def job(self, job_id: str) -> dict[str, Any]:
        return await self._ask("GET", f"/v1/jobs/{job_id}")

    async def pool(self) -> dict[str, Any]:
        return await self._ask("GET", "/v1/pool")

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._session.request(method, path, json=body) as response:
            if response.status >= 400:
                raise TurnedDown(f"{response.status}: {(await response.text()).strip()}")
            answer: dict[str, Any] = await response.json()
            return answer
