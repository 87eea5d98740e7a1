"""A load function caps a worker at a real server: what is dispatched to LiveKit's own worker, and to Greenroom's."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker
from support import eventually

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "capped.py"
DISPATCH_SECONDS = 10.0


@pytest.mark.more
@pytest.mark.parametrize("kind", ["livekit", "greenroom"])
async def test_a_full_worker_gets_no_call_until_one_has_ended(
    livekit: LiveKitServer, tmp_path: Path, kind: str
) -> None:
    environment = {"GATES": str(tmp_path), "LIVEKIT_AGENT_NAME": "capped"}
    worker: StockWorker | RunningWorker
    if kind == "livekit":
        worker = StockWorker(livekit, AGENT, agent_name="capped", environment=environment)
    else:
        worker = RunningWorker(str(AGENT), env={**os.environ, **livekit.environment, **environment})
    async with worker, livekit.api() as api:
        await worker.logs("the worker is registered: AW_")
        for room in ("hall", "attic"):
            await called(worker, api, room)
        await refused(livekit, api, "cellar")
        assert not any("a call in cellar" in line for line in worker.lines)
        (tmp_path / "hall").touch()
        await called(worker, api, "porch")
        assert not any("a call in cellar" in line for line in worker.lines)


async def called(worker: StockWorker | RunningWorker, api: ServerApi, room: str) -> None:
    """Dispatch the agent until it is there. A server that finds no worker asks nobody twice."""
    while not any(f"a call in {room}" in line for line in worker.lines):
        await api.dispatch("capped", room)
        with suppress(TimeoutError):
            async with asyncio.timeout(DISPATCH_SECONDS):
                await worker.logs(f"a call in {room}")


async def refused(livekit: LiveKitServer, api: ServerApi, room: str) -> None:
    """Dispatch the agent, and wait until the server has found no worker that takes the call."""
    before = len(livekit.log.splitlines())
    await api.dispatch("capped", room)
    await eventually(
        lambda: any(_is_refusal(room, line) for line in livekit.log.splitlines()[before:]), f"refusal of {room}"
    )


def _is_refusal(room: str, line: str) -> bool:
    """Tell what the server logs of a worker that declines, or of one that it knows to be full."""
    declined = "no worker available to handle job" in line and f'"room": "{room}"' in line
    is_full = "failed to send job request" in line and '"agentName": "capped"' in line
    return declined or is_full
