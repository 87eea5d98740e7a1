"""One run: the worker, its calls and Prometheus, from start to account."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from server.prometheus import Prometheus, a_prometheus
from server.running_worker import RunningWorker

from .judge import Seen
from .load import Load

__all__ = ["Options", "Run"]

MAX_JOBS = 24
IDLE = 4
FULL_SECONDS = 60.0
RELOADS, FULL, LOST = (0.15, 0.65), 0.3, 0.8
"""When it happens, as parts of the run."""


@dataclass(frozen=True)
class Options:
    minutes: float
    interval: int
    """Seconds between two scrapes."""
    seed: int = 0
    is_busy: bool = False
    """True if the machine is busy with something else. Then no call is rejected for want of CPU time."""

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def full_seconds(self) -> float:
        return min(FULL_SECONDS, 0.2 * self.seconds)


class Run:
    """``go()`` returns when all has ended. Then ``seen`` has what was seen."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.seen = Seen(float(options.interval))
        self._folder = folder
        self._begin = 0.0

    async def go(self) -> None:
        app = self._folder / "agent.py"
        shutil.copy(Path(__file__).with_name("agent.py"), app)
        rules = (self._written("alerts") / "greenroom-alerts.yml").read_text()
        dashboard = json.loads((self._written("grafana") / "greenroom-dashboard.json").read_text())
        sizes = ("--max-jobs", str(MAX_JOBS), "--num-idle-processes", str(IDLE), "--rate-limit", "off")
        sizes += ("--max-cpu-wait-ms", "off") if self.options.is_busy else ()
        async with RunningWorker(f"{app}:app", *sizes, "--history", str(self._folder / "history.db")) as worker:
            url = await worker.url()
            await worker.until("/v1/pool", lambda answer: answer.body["idle"] >= IDLE)
            async with a_prometheus(url, rules, self._folder, self.options.interval) as prometheus:
                await prometheus.until_scraped(2)
                await self._watch(worker, prometheus, dashboard)
            worker.signal(signal.SIGTERM)
            self.seen.exit_code = await worker.exit_code()
            self.seen.warnings = [line for line in worker.lines if re.search(r" (WARNING|ERROR) ", line)]

    def _written(self, what: str) -> Path:
        """Have the command write its files, and return their folder."""
        folder = self._folder / what
        command = [Path(sys.executable).with_name("greenroom"), "init", what, "--output", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return folder

    async def _watch(self, worker: RunningWorker, prometheus: Prometheus, dashboard: dict[str, object]) -> None:
        load = Load(worker, self.options.seed)
        self._begin = time.time()
        steady = asyncio.create_task(load.steady())
        try:
            await self._disturb(worker, load)
            await self._until(1.0)
            await self._read(prometheus, dashboard)
        finally:
            steady.cancel()
            await asyncio.gather(steady, return_exceptions=True)
        await load.settled()
        self.seen.calls = load.calls

    async def _disturb(self, worker: RunningWorker, load: Load) -> None:
        await self._until(RELOADS[0])
        await self._reload(worker)
        await self._until(FULL)
        await self._fill(worker, load)
        await self._until(RELOADS[1])
        await self._reload(worker)
        await self._until(LOST)
        self.seen.zygote_lost = time.time()
        os.kill((await worker.get("/v1/pool")).body["zygote_pid"], signal.SIGKILL)

    async def _until(self, part: float) -> None:
        await asyncio.sleep(max(self._begin + part * self.options.seconds - time.time(), 0.0))

    async def _reload(self, worker: RunningWorker) -> None:
        answer = await worker.ask("POST", "/v1/pool/reload", json={})
        self.seen.reloads.append(answer.status)

    async def _fill(self, worker: RunningWorker, load: Load) -> None:
        """Take all places, and keep them for a minute. Calls that come meanwhile are rejected."""
        begin = time.time()
        end = begin + self.options.full_seconds
        self.seen.full = (begin, end)
        while (left := end - time.time()) > 0:
            for _ in range((await worker.get("/pressure")).body["free"]):
                load.call(left)
            await asyncio.sleep(min(left, 0.2))
        await worker.until("/pressure", lambda answer: answer.body["free"] > 0)
        self.seen.full = (begin, time.time())

    async def _read(self, prometheus: Prometheus, dashboard: dict[str, object]) -> None:
        """Read what Prometheus has, while the calls still go on."""
        seen, end = self.seen, time.time()
        for one in await prometheus.query_range('ALERTS{alertstate="firing"}', self._begin, end, seen.interval):
            times = [float(at) for at, _ in one["values"]]
            seen.firing.setdefault(one["metric"]["alertname"], []).extend(times)
        for panel in dashboard["panels"]:  # type: ignore[attr-defined]
            values = seen.panels.setdefault(panel["title"], {})
            for target in panel["targets"]:
                found = await prometheus.query(target["expr"].replace("$instance", ".*"))
                values[target["expr"]] = [float(one["value"][1]) for one in found]
        (most,) = await prometheus.query('max_over_time(scrape_samples_scraped{job="greenroom"}[2h])')
        seen.series = float(most["value"][1])
