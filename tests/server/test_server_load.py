"""Far more sessions than there are slots, all at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from faults.stage import Stage
from running_worker import RunningWorker
from support import DEADLINE, eventually

SLOTS, OFFERS = 32, 500
GROWTH_MB = 40
"""What a worker may grow by that has answered 500 requests at a time; a leak of a session each would show."""


@pytest.mark.more
async def test_W2_P9_500_offers_on_32_slots(make_app: Callable[[str], str]) -> None:
    """32 run, 468 are turned down with the reason; none is lost, none runs twice."""
    options = ["--max-jobs", str(SLOTS), "--num-idle-processes", str(SLOTS), "--max-idle-processes", str(SLOTS)]
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options, "--rate-limit", "off") as worker:
        url = f"{await worker.url()}/v1/jobs"
        before = _rss_mb(worker.pid)
        for round_number in range(3):
            answers = await _offer_all(url, round_number)
            assert Counter(status for status, _ in answers) == {201: SLOTS, 503: OFFERS - SLOTS}
            assert {reason for status, reason in answers if status == 503} == {"full"}
            assert (await worker.get("/pressure")).body["running"] == SLOTS
            for _ in range(SLOTS):
                (await stage.next("job")).order("leave")
            await worker.until("/pressure", lambda answer: answer.body["running"] == 0)
            await worker.until("/pressure", lambda answer: answer.body["idle"] == SLOTS)
        starts = stage.starts()
        assert len(starts) == 3 * SLOTS
        assert set(starts.values()) == {1}
        succeeded = (await worker.get("/v1/jobs?outcome=succeeded")).body["jobs"]
        assert {job["id"] for job in succeeded} == set(starts)
        await eventually(lambda: _rss_mb(worker.pid) < before + GROWTH_MB, "a worker as small as before")


async def _offer_all(url: str, round_number: int) -> list[tuple[int, str | None]]:
    async def offer(session: aiohttp.ClientSession, number: int) -> tuple[int, str | None]:
        order = {"id": f"call-{round_number}-{number}", "metadata": "stay"}
        async with session.post(url, json=order) as response:
            body = await response.json()
            return response.status, body["error"]["reason"] if response.status == 503 else None

    timeout = aiohttp.ClientTimeout(total=2 * DEADLINE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        return await asyncio.gather(*(offer(session, number) for number in range(OFFERS)))


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
