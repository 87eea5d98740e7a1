"""Options of an agent's server hold under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from rooms.livekit_server import LiveKitServer
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

pytestmark = pytest.mark.alone

AGENT = AGENTS / "slow_setup.py"


@asynccontextmanager
async def a_worker(kind: str, livekit: LiveKitServer) -> AsyncIterator[StockWorker | RunningWorker]:
    worker: StockWorker | RunningWorker
    if kind == "livekit":
        worker = StockWorker(livekit, AGENT)
    else:
        worker = RunningWorker(str(AGENT), env={**os.environ, **livekit.environment})
    async with worker:
        yield worker


@pytest.mark.parametrize("kind", ["livekit", "greenroom"])
async def test_a_slow_setup_has_its_time_and_probes_are_answered_on_the_apps_port(
    livekit: LiveKitServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PORT", str(port))
    async with a_worker(kind, livekit) as worker:
        await worker.logs("process is set up")
        await worker.logs("process initialized" if kind == "livekit" else "serving .* with 1 idle processes")
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
            assert (answer.status, await answer.text()) == (200, "OK")
        assert not [line for line in worker.lines if "timed out" in line or "prewarm_timeout (" in line]
