"""Agents in each style of main block end alike, and log alike, under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from rooms.compared_lines import is_compared
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker
from support import eventually

pytestmark = [pytest.mark.more, pytest.mark.alone]  # ten workers of either kind

AGENT = AGENTS / "styles.py"
STYLES = {
    "top level": (),
    "raises": (),
    "changed": (),
    "in main": (),
    "partial": (),
    "method": (),
    "thread": (),
    "run": (),
    "debug": ("--log-level", "debug"),
}
"""By the agent's STYLE: the arguments after ``start``."""

DISPATCH_SECONDS = 10.0

Lines = Counter[tuple[str, str, str]]
"""Level, logger and message, of one job."""


async def test_each_style_ends_and_logs_alike(livekit: LiveKitServer) -> None:
    theirs, ours = await under_livekits(livekit), await under_greenrooms(livekit)
    # Without LiveKit's command line nothing hides what the native library tells. Greenroom hides it always.
    native = [line for line in theirs["run"] if line[1] == "livekit"]
    assert native
    for line in native:
        del theirs["run"][line]
    for style in STYLES:
        assert ours[style] == theirs[style], style
        messages = [message for _, _, message in ours[style]]
        assert [message for message in messages if message.startswith("greeted ")], style
        assert f"call ended: {'job crashed' if style == 'raises' else 'told enough'}" in messages
    assert ("INFO", "styles", "greeted by a partial; set up: {}") in ours["partial"]
    assert ("INFO", "styles", "greeted at the top level; set up: {'by': 'setup'}") in ours["changed"]
    assert ("INFO", "styles", "exported the span of this call") in ours["debug"]
    heard = ("DEBUG", "styles", "heard if it is asked for")
    assert [style for style in STYLES if heard in ours[style]] == ["debug"]


async def under_livekits(livekit: LiveKitServer) -> dict[str, Lines]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(livekit.api())
        workers = {}
        for style, arguments in STYLES.items():
            worker = StockWorker(livekit, AGENT, *arguments, environment={"STYLE": style})
            workers[style] = await stack.enter_async_context(worker)
        return await lines_of_all(workers, api, "pid")


async def under_greenrooms(livekit: LiveKitServer) -> dict[str, Lines]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(livekit.api())
        workers = {}
        for style, arguments in STYLES.items():
            environment = {**os.environ, **livekit.environment, "STYLE": style}
            worker = RunningWorker(str(AGENT), "--log-format", "json", "--", *arguments, env=environment)
            workers[style] = await stack.enter_async_context(worker)
        return await lines_of_all(workers, api, "job_pid")


async def lines_of_all(
    workers: Mapping[str, StockWorker | RunningWorker], api: ServerApi, pid_is: str
) -> dict[str, Lines]:
    """Have each worker run a job, all at once."""
    found = await asyncio.gather(*(lines_of(style, worker, api, pid_is) for style, worker in workers.items()))
    return dict(zip(workers, found, strict=True))


async def lines_of(style: str, worker: StockWorker | RunningWorker, api: ServerApi, pid_is: str) -> Lines:
    """Have a job run to its end, and return what it has logged."""
    await worker.logs("registered (worker|as AW_)")
    while not has_been_called(worker):
        # Right after a registration a server does not always find the worker yet, and it asks nobody twice.
        await api.dispatch(style, f"room of {style}")
        with suppress(TimeoutError):
            async with asyncio.timeout(DISPATCH_SECONDS):
                while not has_been_called(worker):
                    await asyncio.sleep(0.05)
    pid = json.loads((await worker.logs("greeted ")).string)[pid_is]
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"), "end of the job's process")
    await worker.logs("call ended: ")
    if isinstance(worker, RunningWorker):
        await worker.logs(rf'"job_pid": {pid}.*"event": "process_ended"')
    found = [json.loads(line) for line in worker.lines if line.startswith("{")]
    return Counter(filter(None, (line_of(each) for each in found if each.get(pid_is) == pid)))


def has_been_called(worker: StockWorker | RunningWorker) -> bool:
    return any("greeted " in line for line in worker.lines)


def line_of(each: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return level, logger and message; of a traceback the two ends, since between them are frames of either worker."""
    if not is_compared(each["message"]):
        return None
    first, *rest = each["message"].splitlines()
    message = "\n".join([first, *rest[-1:]])
    if "app_logger" in each:
        return each["level"].upper(), each["app_logger"], message
    return (each["level"], each["name"], message) if "name" in each else None
