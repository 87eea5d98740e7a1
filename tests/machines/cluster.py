"""Three real workers, each as if on a machine of its own, and HAProxy in front of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
import commands
from server.running_worker import Answer, RunningWorker
from support import DEADLINE, eventually
from yarl import URL

from .audit import Began, Job, Place, Told, faults, unfinished
from .haproxy import Haproxy, kept_port

__all__ = ["Cluster", "Edit", "Front", "Machine", "added", "changed", "within", "without"]

APP = """
import asyncio, json, os
import greenroom

app = greenroom.App()
MACHINE, START = os.environ["MACHINE"], os.environ["MACHINE_START"]

@app.prewarm
async def prewarm(proc):
    while os.path.exists("FOLDER/hold"):
        await asyncio.sleep(0.02)

@app.entrypoint
async def entrypoint(ctx):
    asked = ctx.job.metadata
    line = json.dumps([asked["key"], ctx.job.id, MACHINE, START]) + "\\n"
    journal = os.open("FOLDER/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, line.encode())
    os.close(journal)
    if asked.get("stays"):
        await asyncio.Event().wait()
    await asyncio.sleep(asked.get("seconds", 0))
"""

SETTINGS = ("--offer-timeout", "10", "--prewarm-timeout", "120", "--shutdown-timeout", "1", "--cleanup-timeout", "1")
"""A machine that is busy with other tests is late, and refuses nothing for that."""
LIMITS = ("--rate-limit", "off", "--max-cpu-wait-ms", "off", "--min-free-memory-mb", "off")
NAMES = ("a", "b", "c")

# --- changes of the file -------------------------------------------------------------------------

Edit = Callable[[str], str]


def changed(old: str, new: str) -> Edit:
    """Replace a text of the file, which must be there."""

    def edit(text: str) -> str:
        assert old in text, f"there is no {old!r} in the file"
        return text.replace(old, new)

    return edit


def without(*lines: str) -> Edit:
    """Remove each line that begins with one of these texts."""

    def edit(text: str) -> str:
        kept = [line for line in text.splitlines() if not line.strip().startswith(lines)]
        for line in lines:
            assert any(one.strip().startswith(line) for one in text.splitlines()), f"there is no line {line!r}"
        return "\n".join(kept) + "\n"

    return edit


def added(after: str, line: str) -> Edit:
    """Add a line after the one that begins with a text."""

    def edit(text: str) -> str:
        (found,) = (one for one in text.splitlines() if one.strip().startswith(after))
        return text.replace(f"{found}\n", f"{found}\n    {line}\n")

    return edit


def within(section: str, *edits: Edit) -> Edit:
    """Change one section of the file, such as ``backend lookups``."""

    def edit(text: str) -> str:
        parts = text.split("\n\n")
        (place,) = (number for number, part in enumerate(parts) if f"{section} from " in part)
        for one in edits:
            parts[place] = one(parts[place])
        return "\n\n".join(parts)

    return edit


# --- the parts -----------------------------------------------------------------------------------


class Machine:
    """A worker that can die, and come back at the same address."""

    def __init__(self, name: str, agent: Path, options: Iterable[str]) -> None:
        self.name = name
        self.port = 0
        self.all: list[RunningWorker] = []
        """Its workers so far; the last one may live."""
        self.is_living = False
        self._agent = agent
        self._options = tuple(options)
        self._filling: list[str] = []

    @property
    def worker(self) -> RunningWorker:
        return self.all[-1]

    @property
    def place(self) -> Place:
        return self.name, str(len(self.all))

    async def start(self) -> None:
        environment = {**os.environ, "MACHINE": self.name, "MACHINE_START": str(len(self.all) + 1)}
        options = (*self._options, "--worker-name", self.name, "--port", str(self.port))
        worker = RunningWorker(f"{self._agent}:app", *options, env=environment)
        await worker.__aenter__()
        self.all.append(worker)
        self.is_living = True
        self.port = await worker.port()
        await worker.until("/readyz", lambda answer: answer.status == 200)

    async def kill(self) -> None:
        """Kill it, and return when it is dead."""
        self.worker.signal(signal.SIGKILL)
        self.is_living = False
        await self.worker.exit_code()

    async def idle(self, count: int) -> None:
        await self.worker.until("/v1/pool", lambda answer: answer.body["idle"] >= count)

    async def fill(self) -> None:
        """Take all its slots, past HAProxy."""
        while True:
            key = f"filling-{self.name}-{len(self.all)}-{len(self._filling)}"
            answer = await self.worker.post({"key": key, "stays": True})
            if answer.status != 201:
                assert answer.error["reason"] == "full", answer
                return
            self._filling.append(answer.body["id"])

    async def empty(self) -> None:
        """Free the slots that :meth:`fill` has taken."""
        ids, self._filling = self._filling, []
        for job_id in ids:
            await self.worker.ask("DELETE", f"/v1/jobs/{job_id}")
        await self.worker.until("/v1/pool", lambda answer: not answer.body["jobs"])

    async def jobs(self, query: str = "") -> list[dict[str, Any]]:
        answer = await self.worker.get(f"/v1/jobs{query}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.body["jobs"]
        return found

    async def started(self, began: Collection[Began]) -> set[Job]:
        """Return the sessions that it says it has started. One that was cancelled may not have written its line."""
        noted = {one.id for one in began}
        return {
            (job["metadata"]["key"], job["id"])
            for job in await self.jobs()
            if job["started"] is not None and (job["outcome"] != "cancelled" or job["id"] in noted)
        }

    async def is_settled(self) -> bool:
        """Return whether no session is on its way."""
        live = await self.jobs("?state=live")
        return all([job["state"] in ("running", "draining", "ending") for job in live])


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any

    @property
    def error(self) -> str:
        return str(self.body["error"]["type"]) if isinstance(self.body, dict) and "error" in self.body else ""


class Front(Haproxy):
    """HAProxy in front of the workers, and its clients."""

    def __init__(self, folder: Path, port: int, env: dict[str, str] | None = None) -> None:
        super().__init__(folder, env)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.told: list[Told] = []
        """What each client was told."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE * 2)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        # aiohttp repeats a GET whose lasting connection is closed without an answer. Tests must see that.
        self._lookups = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout)

    async def start_job(
        self, key: str, *, id: str | None = None, timeout: float | None = None, pad: int = 0, **asked: Any
    ) -> Told:
        """Ask for a session. ``pad`` is the number of bytes by which its metadata is longer."""
        body = {"metadata": {"key": key, "pad": "x" * pad, **asked}, "id": id, "timeout": timeout}
        sent = time.monotonic()
        try:
            async with self._session.post(f"{self.url}/v1/jobs", json=body) as response:
                text, worker = await response.text(), response.headers.get("Greenroom-Worker")
            told = Told(key, response.status, plain(text), worker, sent, time.monotonic())
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            told = Told(key, None, None, None, sent, time.monotonic())
        self.told.append(told)
        return told

    async def request(self, method: str, path: str, **request: Any) -> Reply:
        url = URL(f"{self.url}{path}", encoded=True)
        async with self._lookups.request(method, url, allow_redirects=False, **request) as response:
            return Reply(response.status, plain(await response.text()), response.headers)

    async def get(self, path: str) -> Reply:
        return await self.request("GET", path)

    async def close(self) -> None:
        await self._session.close()
        await self._lookups.close()
        await self.stop()
        self.remove()


def plain(text: str) -> Any:
    """Return the JSON in a text, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class Cluster:
    """Three workers with one app, whose sessions write a journal. ``idle`` and ``jobs`` are sizes of each worker."""

    def __init__(self, folder: Path, *options: str, idle: int = 3, jobs: int = 10) -> None:
        self._folder = folder
        self._idle = idle
        self._numbers = itertools.count()
        self._options = options
        self.agent = folder / "agent.py"
        sizes = ("--num-idle-processes", str(idle), "--max-jobs", str(jobs))
        all_options = (*SETTINGS, *LIMITS, *sizes, *options)
        self.machines = {name: Machine(name, self.agent, all_options) for name in NAMES}
        self.killed: dict[str, float] = {}
        """Time of the last kill of each machine."""

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    async def __aenter__(self) -> Cluster:
        self.agent.write_text(APP.replace("FOLDER", str(self._folder)))
        try:
            await asyncio.gather(*(machine.start() for machine in self.machines.values()))
            await self.warm()
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        workers = [worker for machine in self.machines.values() for worker in machine.all]
        for machine in self.machines.values():
            if machine.is_living:
                await machine.kill()
        # Each of them takes the others for what it has left running.
        for worker in workers:
            for pid in [other.pid for other in workers if other is not worker]:
                worker.has_nothing_to_do_with(pid)
        for worker in reversed(workers):
            await worker.__aexit__(kind, error, traceback)

    async def kill(self, name: str) -> None:
        await self[name].kill()
        self.killed[name] = time.monotonic()

    async def warm(self) -> None:
        """Wait until each living worker has its idle processes."""
        await asyncio.gather(*(machine.idle(self._idle) for machine in self.machines.values() if machine.is_living))

    @property
    def addresses(self) -> list[str]:
        """The options that name the workers."""
        found = [("--worker", f"{name}=127.0.0.1:{machine.port}") for name, machine in self.machines.items()]
        return list(itertools.chain.from_iterable(found))

    @asynccontextmanager
    async def front(
        self, *edits: Edit, options: Iterable[str] = (), env: dict[str, str] | None = None
    ) -> AsyncIterator[Front]:
        """Run HAProxy with the file that `greenroom init haproxy` writes, after some changes of it."""
        folder = self._folder / f"haproxy-{next(self._numbers)}"
        with kept_port() as port:
            await self.write(folder, port, *options)
            config = folder / "haproxy.cfg"
            for edit in edits:
                config.write_text(edit(config.read_text()))
            front = Front(folder, port, env)
            try:
                await front.start()
                yield front
            finally:
                await front.close()

    async def write(self, folder: Path, port: int, *options: str) -> None:
        """Write the files by the real command."""
        process = await commands.start(
            *("init", "haproxy", f"{self.agent}:app", *self.addresses, *SETTINGS, *self._options),
            *("--bind", f"127.0.0.1:{port}", "--output", str(folder), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()

    # --- the records -----------------------------------------------------------------------------

    @property
    def hold(self) -> Path:
        """A file: while it exists, no further process becomes warm."""
        return self._folder / "hold"

    def began(self) -> list[Began]:
        journal = self._folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [Began(key, job_id, (machine, start)) for key, job_id, machine, start in map(json.loads, lines)]

    async def faults(self, front: Front, patience: float = DEADLINE) -> list[str]:
        """Return what is wrong with all calls through HAProxy so far, by the three records."""
        living = [machine for machine in self.machines.values() if machine.is_living]
        async with asyncio.timeout(DEADLINE):
            while not all([await machine.is_settled() for machine in living]):
                await asyncio.sleep(0.02)
        give_up = time.monotonic() + patience
        while True:
            began = self.began()
            reported = {machine.place: await machine.started(began) for machine in living}
            if not unfinished(front.told, began, reported, self.killed) or time.monotonic() > give_up:
                return faults(front.told, began, reported, self.killed)
            await asyncio.sleep(0.02)

    async def turned_down(self, name: str) -> int:
        """Return how many sessions a worker has refused within the last minute."""
        answer: Answer = await self[name].worker.get("/pressure")
        return int(answer.body["turned_down"]["total"])

    async def until_began(self, *keys: str) -> None:
        await eventually(lambda: set(keys) <= {one.key for one in self.began()}, f"begin of {keys}")
