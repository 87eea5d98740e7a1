"""A real Prometheus on loopback, as Debian packages it, which scrapes one worker and evaluates rules."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import DEADLINE

__all__ = ["Prometheus", "a_prometheus", "program"]


def program(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"there is no {name} on this machine (Debian: apt-get install prometheus)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Prometheus:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def query(self, expression: str) -> list[Any]:
        try:
            async with self._session.get(f"{self._url}/api/v1/query", params={"query": expression}) as answer:
                found: list[Any] = (await answer.json())["data"]["result"]
                return found
        except (aiohttp.ClientError, KeyError):
            return []  # it does not listen yet, or has no data yet

    async def query_range(self, expression: str, begin: float, end: float, step: float) -> list[Any]:
        """Return the values of an expression between two times (seconds since the epoch), one for each step."""
        times = {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        async with self._session.get(
            f"{self._url}/api/v1/query_range", params={"query": expression, **times}
        ) as answer:
            found: list[Any] = (await answer.json())["data"]["result"]
            return found

    async def scrapes(self) -> int:
        found = await self.query('count_over_time(up{job="greenroom"}[1h])')
        return int(found[0]["value"][1]) if found else 0

    async def firing(self) -> set[str]:
        found = await self.query('ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"] for one in found}

    async def until_scraped(self, more: int) -> None:
        """Wait until this many further scrapes have been made."""
        wanted = await self.scrapes() + more
        async with asyncio.timeout(DEADLINE * 2):
            while await self.scrapes() < wanted:
                await asyncio.sleep(0.1)

    async def until_fires(self, alert: str) -> None:
        async with asyncio.timeout(DEADLINE * 2):
            while alert not in await self.firing():
                await asyncio.sleep(0.1)


@asynccontextmanager
async def a_prometheus(target: str, rules: str, folder: Path, seconds: int = 1) -> AsyncIterator[Prometheus]:
    """Scrapes the worker each second, or so, as job ``greenroom``, and evaluates the rules as often."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    (folder / "rules.yml").write_text(rules)
    configuration = {
        "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{seconds}s"),
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [{"job_name": "greenroom", "static_configs": [{"targets": [target.partition("://")[2]]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML, too
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    try:
        async with aiohttp.ClientSession() as session:
            yield Prometheus(f"http://{address}", session)
    finally:
        process.kill()
        await process.wait()
