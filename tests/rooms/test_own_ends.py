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

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "ending.py"
DISPATCH_SECONDS = 10.0


async def called(worker: StockWorker | RunningWorker, api: ServerApi, name: str) -> None:
    """Have the agent come to a room of its name, and delete the room when the server knows that it is there."""
    async with asyncio.timeout(60.0):
        while not await has_come(api, name):
            pass
    await api.delete_room(name)
    await worker.logs("sums up the call")


async def has_come(api: ServerApi, name: str) -> bool:
    """Ask for the agent. Right after a registration a server does not always find the worker, and asks nobody twice."""
    await api.dispatch(name, name)
    with suppress(TimeoutError):
        async with asyncio.timeout(DISPATCH_SECONDS):
            while not any(each.kind == each.AGENT for each in await api.participants(name)):
                await asyncio.sleep(0.05)
            while not any(each.state.jobs for each in await api.dispatches(name)):
                await asyncio.sleep(0.05)
            return True
    return False


@pytest.mark.more
async def test_both_workers_let_an_end_go_on(livekit: LiveKitServer) -> None:
    environment = {**os.environ, **livekit.environment, "LIVEKIT_AGENT_NAME": "ours"}
    options = ("--shutdown-timeout", "1", "--num-idle-processes", "1")
    async with (
        StockWorker(livekit, AGENT, agent_name="theirs") as stock,
        RunningWorker(str(AGENT), *options, env=environment) as worker,
        livekit.api() as api,
    ):
        await stock.logs("registered worker")
        await worker.logs("registered as AW_")
        await asyncio.gather(called(stock, api, "theirs"), called(worker, api, "ours"))
        for each in (stock, worker):
            await each.logs("has summed up the call")
            await each.logs("hangs up: ")
        job_id = (await worker.logs(r"job (AJ_\w+): the server requested its end"))[1]
        report = await worker.report(job_id)
        assert (report["outcome"], report["reason"]) == ("succeeded", "completed"), report["detail"]
        assert report["result"] == {"ended_by": "room disconnected"}
