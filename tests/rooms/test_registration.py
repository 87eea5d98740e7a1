"""What a server and a room know of a worker and its agent, under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest
from rooms.caller import Caller
from rooms.livekit_server import LiveKitServer
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

pytestmark = pytest.mark.in_pairs

DISPATCH_SECONDS = 10.0
AGENT = AGENTS / "answer_options.py"


@pytest.mark.more
@pytest.mark.parametrize("kind", ["livekit", "greenroom"])
async def test_a_server_routes_by_deployment_and_a_room_knows_the_agents_name(
    livekit: LiveKitServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LIVEKIT_AGENT_DEPLOYMENT", "blue")
    environment = {**os.environ, **livekit.environment, "LIVEKIT_AGENT_NAME": "greeter"}
    worker = (
        StockWorker(livekit, AGENT, agent_name="greeter")
        if kind == "livekit"
        else RunningWorker(str(AGENT), "--num-idle-processes", "1", env=environment)
    )
    async with worker, livekit.api() as api:
        await worker.logs("registered worker|registered as AW_")
        await api.dispatch("greeter", "cellar", deployment="green")
        async with Caller(livekit.url, livekit.tokens.caller("ann", "hall"), say=440) as ann:
            await ann.connected()
            attributes = None
            while attributes is None:
                # Right after a registration a server does not always find the worker yet, and it asks nobody twice.
                await api.dispatch("greeter", "hall", deployment="blue")
                with suppress(TimeoutError):
                    async with asyncio.timeout(DISPATCH_SECONDS):
                        attributes = (await ann.agent())["attributes"]
            assert attributes["lk.agent.name"] == "greeter"
            assert not await api.participants("cellar")
        version = __import__("livekit.agents").agents.__version__
    while f'"deployment": "blue", "agentID": "", "version": "{version}"' not in livekit.log:
        await asyncio.sleep(0.05)
