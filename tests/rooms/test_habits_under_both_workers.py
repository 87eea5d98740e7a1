"""Rows of the table in docs/livekit.md: what is alike under both workers, and what differs as it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from rooms.compared_lines import is_compared
from rooms.livekit_server import LiveKitServer
from rooms.server_api import ServerApi
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker
from support import eventually

pytestmark = pytest.mark.in_pairs

AGENT = AGENTS / "habits.py"
DISPATCH_SECONDS = 10.0


class Stage:
    """One of the two workers, with the environment of its own in which the agent runs."""

    def __init__(self, livekit: LiveKitServer, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.ports = [free_port(), free_port()]
        self.gate = folder / "gate"
        for each in ("dumps", "metrics"):
            (folder / each).mkdir(parents=True)
        self.environment = {
            "LIVEKIT_AGENT_NAME": name,
            "PORT": str(self.ports[0]),
            "METRICS_PORT": str(self.ports[1]),
            "GATE": str(self.gate),
            "LK_DUMP_STACK_TRACES": "1",
            "LK_DUMP_DIR": str(folder / "dumps"),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        }
        self.worker: StockWorker | RunningWorker
        if name == "theirs":
            self.worker = StockWorker(livekit, AGENT, agent_name=name, environment=self.environment)
        else:
            environment = {**os.environ, **livekit.environment, **self.environment}
            self.worker = RunningWorker(str(AGENT), "--log-format", "json", env=environment)

    def has_counted(self, metrics: list[str]) -> bool:
        """Return whether the count of greetings is that of the lines about them."""
        lines = sum("greeted as request" in line for line in self.worker.lines)
        return f"greetings_total {lines}.0" in metrics

    async def called(self, api: ServerApi, call: str, until: str) -> int:
        """Have the agent called until its log has that line; returns the process of that job."""
        before = sum(until in line for line in self.worker.lines)
        while sum(until in line for line in self.worker.lines) == before:
            # Right after a registration a server does not always find the worker yet, and it asks nobody twice.
            await api.dispatch(self.name, f"{call} by {self.name}", metadata=call)
            with suppress(TimeoutError):
                async with asyncio.timeout(DISPATCH_SECONDS):
                    while sum(until in line for line in self.worker.lines) == before:
                        await asyncio.sleep(0.05)
        line = await self.worker.logs(until, count=before + 1)
        pid: int = json.loads(line.string)["pid" if self.name == "theirs" else "job_pid"]
        return pid

    def lines_of(self, pid: int) -> list[tuple[str, str]]:
        """Level and message of each line that this job's process has logged."""
        name = "pid" if self.name == "theirs" else "job_pid"
        found = [json.loads(line) for line in self.worker.lines if line.startswith("{")]
        own = [each for each in found if each.get(name) == pid and ("name" in each or "app_logger" in each)]
        return sorted((each["level"].upper(), each["message"]) for each in own if is_compared(each["message"]))

    def has_logged(self, pid: int, message: str) -> bool:
        return ("INFO", message) in self.lines_of(pid)

    async def fetched(self, port: int, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def is_ended(pid: int) -> None:
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"), "end of the job's process")


@pytest.mark.more
async def test_habits_end_and_log_alike_or_differ_as_the_table_says(livekit: LiveKitServer, tmp_path: Path) -> None:
    stages = theirs, ours = [Stage(livekit, name, tmp_path / name) for name in ("theirs", "ours")]
    async with theirs.worker, ours.worker, livekit.api() as api:
        await theirs.worker.logs("registered worker")
        await ours.worker.logs("registered as AW_")

        # The port of the app: the same answer at /, LiveKit's /worker under its own worker only.
        for stage, status in ((theirs, 200), (ours, 404)):
            assert await stage.fetched(stage.ports[0], "/") == (200, "OK")
            assert (await stage.fetched(stage.ports[0], "/worker"))[0] == status

        # A slow request function, a shared model: the same log, and the same end.
        pids = await asyncio.gather(*(stage.called(api, "first", "call ended: told enough") for stage in stages))
        for pid in pids:
            await is_ended(pid)
        await ours.worker.logs(rf'"job_pid": {pids[1]}.*"event": "process_ended"')
        assert ours.lines_of(pids[1]) == theirs.lines_of(pids[0])
        assert any(text.startswith("greeted as request") for _, text in ours.lines_of(pids[1]))
        assert ("INFO", "inferred b'cba'") in ours.lines_of(pids[1])

        # SIGUSR1: a dump of the job's stacks, and it goes on. In LiveKit's forkserver the handler is never put up.
        ends = ("process exited with non-zero exit code -10", "goes on after a dump of its stacks")
        await asyncio.gather(*(stage.called(api, "dumped", end) for stage, end in zip(stages, ends, strict=True)))

        # An entrypoint that never connects: Greenroom ends its job, LiveKit keeps the process.
        line = "has nothing to do in a room"
        pids = await asyncio.gather(*(stage.called(api, "never connects", line) for stage in stages))
        await is_ended(pids[1])
        await ours.worker.logs("call ended: the entrypoint returned, and never connected")
        assert os.path.exists(f"/proc/{pids[0]}")

        # A drain waits for the call. What a request function left is found by the next one, under both.
        pids = await asyncio.gather(*(stage.called(api, "drained", "talks") for stage in stages))
        for stage, pid in zip(stages, pids, strict=True):
            assert ("INFO", "greeted as request 1") not in stage.lines_of(pid)
        # What jobs count: at the app's prometheus_port, and at the worker's own /metrics/jobs.
        for stage, port, path in (
            (theirs, theirs.ports[1], "/metrics"),
            (ours, await ours.worker.port(), "/metrics/jobs"),
        ):
            metrics = (await stage.fetched(port, path))[1].splitlines()
            # The line comes after the count, so it may still be on its way.
            await eventually(partial(stage.has_counted, metrics), "all lines of what is counted")
        for stage in stages:
            stage.worker.signal(signal.SIGTERM)
        await theirs.worker.logs("draining worker")
        await ours.worker.logs("draining")
        for stage, pid in zip(stages, pids, strict=True):
            stage.gate.touch()
            await is_ended(pid)
            await eventually(partial(stage.has_logged, pid, "call ended: told enough"), "its last line")
