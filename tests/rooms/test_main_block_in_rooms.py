"""An agent whose main block is a program, under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import aiohttp
import pytest
from rooms.caller import Caller
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "program.py"
NAME = ("--name", "programmer")


async def health(worker: StockWorker | RunningWorker) -> str:
    port = (await worker.logs(r"health checks on port (\d+)"))[1]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}") as response:
        return await response.text()


async def called(livekit: LiveKitServer, api: ServerApi, room: str) -> dict[str, str]:
    """Call the agent and hear it; returns what it says of its process."""
    async with Caller(livekit.url, livekit.tokens.caller("ann", room), say=440) as ann:
        await ann.connected()
        agent = None
        while agent is None:
            # Right after a registration a server does not always find the worker yet, and it asks nobody twice.
            await api.dispatch("programmer", room)
            with suppress(TimeoutError):
                agent = await ann.event("joined", kind="agent", deadline=10.0)
        await ann.hears(agent["identity"])
        found = await ann.attributes(agent["identity"], "arguments")
        await ann.send("leave")
        return {name: found[name] for name in ("arguments",)}


@pytest.mark.more
async def test_it_serves_alike_under_both_workers(livekit: LiveKitServer) -> None:
    async with StockWorker(livekit, AGENT, *NAME) as stock, livekit.api() as api:
        await stock.logs("registered worker")
        assert (await health(stock)).startswith("alive in")
        theirs = await called(livekit, api, "first")
    environment = {**os.environ, **livekit.environment}
    options = ("--num-idle-processes", "1", "--", *NAME)
    async with RunningWorker(str(AGENT), *options, env=environment) as worker, livekit.api() as api:
        await worker.logs("registered as AW_")
        alive = await health(worker)
        assert await called(livekit, api, "second") == theirs
        worker.signal(signal.SIGHUP)
        await worker.logs("reloaded")
        zygote = (await worker.logs(r"zygote (\d+) has loaded the app", count=2))[1]
        os.kill(int(zygote), signal.SIGKILL)
        await worker.logs(r"zygote \d+ has loaded the app", count=3)
        assert await called(livekit, api, "third") == theirs
        assert await health(worker) == alive
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
