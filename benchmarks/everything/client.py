"""What the soak asks of the worker by HTTP, and the events that it hears."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp

__all__ = ["Client"]

SECONDS = 60.0


class Client:
    """``async with Client(url)``. What is asked while the worker is down raises ``aiohttp.ClientError``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # a kept connection may be cut as it is used
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        async with self._session.request(method, f"{self._url}{path}", json=body) as response:
            text = await response.text()
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, {"error": {"type": "no JSON", "message": text[:300]}}

    async def pool(self) -> dict[str, Any]:
        """Return the pool's figures and processes; empty if there is no answer."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            status, answer = await self.ask("GET", "/v1/pool")
            if status == 200:
                return dict(answer)
        return {}

    async def follow(self, hear: Callable[[str, dict[str, Any]], None]) -> None:
        """Pass on each event by name, until cancelled. ``connected`` comes first, and after each gap."""
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
                async with self._session.get(f"{self._url}/v1/events", timeout=timeout) as response:
                    if response.status == 200:
                        hear("connected", {})
                        await self._read(response, hear)
            await asyncio.sleep(0.1)

    async def _read(self, response: aiohttp.ClientResponse, hear: Callable[[str, dict[str, Any]], None]) -> None:
        name, buffer = "", bytearray()
        async for piece in response.content.iter_any():
            buffer += piece  # a line may be longer than a reader's limit
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: ") and name != "board":
                    hear(name, json.loads(line[6:]))
