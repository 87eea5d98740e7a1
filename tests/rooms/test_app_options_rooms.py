"""Options of an agent's server hold under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import os
import socket

import aiohttp
import pytest
from rooms.livekit_server import LiveKitServer
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "slow_setup.py"


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.more
async def test_a_slow_setup_has_its_time_and_probes_are_answered_on_the_apps_port(livekit: LiveKitServer) -> None:
    ports = free_port(), free_port()
    environment = {**os.environ, **livekit.environment, "PORT": ports[1]}
    async with (
        StockWorker(livekit, AGENT, environment={"PORT": ports[0]}) as stock,
        RunningWorker(str(AGENT), env=environment) as worker,
        aiohttp.ClientSession() as session,
    ):
        await stock.logs("process initialized")
        await worker.logs("serving .* with 1 idle processes")
        for each, port in zip((stock, worker), ports, strict=True):
            await each.logs("process is set up")
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                assert (answer.status, await answer.text()) == (200, "OK")
            assert not [line for line in each.lines if "timed out" in line or "prewarm_timeout (" in line]
