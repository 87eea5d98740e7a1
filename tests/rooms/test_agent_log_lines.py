"""The log of a job, line by line, under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress

import pytest
from rooms.caller import Caller
from rooms.compared_lines import is_compared
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker
from support import eventually

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "telling.py"
LAST = "call ended: told enough"

DISPATCH_SECONDS = 10.0

Line = tuple[str, str, str]
"""Level, logger and message."""


@pytest.mark.more
async def test_a_job_logs_the_same_lines_under_both_workers(livekit: LiveKitServer) -> None:
    theirs, ours = await under_livekits(livekit), await under_greenrooms(livekit)
    assert ours == theirs
    assert ("INFO", "livekit.agents", "STT metrics") in ours
    assert ("INFO", "livekit.plugins.check", "livekit.plugins.check tells") in ours
    (closing,) = (
        message for _, name, message in ours if name == "livekit.agents" and "closing agent session" in message
    )
    assert "participant disconnect" in closing
    assert not [line for line in ours if line[0] == "DEBUG"]


async def called(livekit: LiveKitServer, worker: StockWorker | RunningWorker, api: ServerApi) -> None:
    """Call the agent, and hang up when it has told all."""
    async with Caller(livekit.url, livekit.tokens.caller("ann", "hall"), say=440) as ann:
        await ann.connected()
        while not told_all(worker):
            # Right after a registration a server does not always find the worker yet, and it asks nobody twice.
            await api.dispatch("teller", "hall")
            with suppress(TimeoutError):
                async with asyncio.timeout(DISPATCH_SECONDS):
                    while not told_all(worker):
                        await asyncio.sleep(0.05)


def told_all(worker: StockWorker | RunningWorker) -> bool:
    return any("httpx tells" in line for line in worker.lines)


async def under_livekits(livekit: LiveKitServer) -> Counter[Line]:
    async with StockWorker(livekit, AGENT, agent_name="teller") as worker, livekit.api() as api:
        await worker.logs("registered worker")
        await called(livekit, worker, api)
        pid = json.loads((await worker.logs(LAST)).string)["pid"]
        await eventually(lambda: not os.path.exists(f"/proc/{pid}"), "end of the job's process")
        lines = [json.loads(line) for line in worker.lines if line.startswith("{")]
    own = [each for each in lines if each.get("pid") == pid and is_compared(each["message"])]
    return Counter((each["level"], each["name"], each["message"]) for each in own)


async def under_greenrooms(livekit: LiveKitServer) -> Counter[Line]:
    environment = {**os.environ, **livekit.environment, "LIVEKIT_AGENT_NAME": "teller"}
    async with RunningWorker(str(AGENT), "--log-format", "json", env=environment) as worker, livekit.api() as api:
        await worker.logs("registered as AW_")
        await called(livekit, worker, api)
        pid = json.loads((await worker.logs(LAST)).string)["job_pid"]
        await worker.logs(rf'"job_pid": {pid}.*"event": "process_ended"')
        lines = [json.loads(line) for line in worker.lines]
    own = [
        each
        for each in lines
        if each.get("job_pid") == pid and each["logger"] == "greenroom.app" and is_compared(each["message"])
    ]
    return Counter((each["level"].upper(), each["app_logger"], each["message"]) for each in own)
