"""A call ends with its room, and the server says so afterwards: under both workers that cuts nothing off."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

pytestmark = pytest.mark.alone

AGENT = AGENTS / "ending.py"
DISPATCH_SECONDS = 10.0


async def called(worker: StockWorker | RunningWorker, api: ServerApi) -> None:
    """Have the agent come, and delete the room under it when the server knows that it is there."""
    async with asyncio.timeout(60.0):
        while not await has_come(api):
            pass
    await api.delete_room("hall")
    await worker.logs("sums up the call")


async def has_come(api: ServerApi) -> bool:
    """Ask for the agent. Right after a registration a server does not always find the worker, and asks nobody twice."""
    await api.dispatch("closer", "hall")
    with suppress(TimeoutError):
        async with asyncio.timeout(DISPATCH_SECONDS):
            while not any(each.kind == each.AGENT for each in await api.participants("hall")):
                await asyncio.sleep(0.05)
            while not any(each.state.jobs for each in await api.dispatches("hall")):
                await asyncio.sleep(0.05)
            return True
    return False


async def test_livekits_own_worker_lets_an_end_go_on(livekit: LiveKitServer) -> None:
    async with StockWorker(livekit, AGENT, agent_name="closer") as worker, livekit.api() as api:
        await worker.logs("registered worker")
        await called(worker, api)
        await worker.logs("has summed up the call")
        await worker.logs("hangs up: ")


async def test_greenrooms_worker_lets_an_end_go_on(livekit: LiveKitServer) -> None:
    environment = {**os.environ, **livekit.environment}
    options = ("--shutdown-timeout", "1", "--num-idle-processes", "1")
    async with RunningWorker(str(AGENT), *options, env=environment) as worker, livekit.api() as api:
        await worker.logs("registered as AW_")
        await called(worker, api)
        job_id = (await worker.logs(r"job (AJ_\w+) is to be ended: the server says so"))[1]
        await worker.logs("has summed up the call")
        await worker.logs("hangs up: ")
        report = await worker.report(job_id)
        assert (report["outcome"], report["reason"]) == ("succeeded", "completed"), report["detail"]
        assert report["result"] == {"ended_by": "room disconnected"}
