"""LiveKit's own worker, unchanged, on Greenroom's pool, and a server that speaks to it by a script."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("livekit.protocol")  # light; livekit.agents takes seconds of CPU, and so only the tests import it

import aiohttp
from aiohttp import web
from dropin_stage import Notes, load_agent
from livekit.protocol import agent as proto
from livekit.protocol import models
from support import DEADLINE


class Dispatcher:
    """A LiveKit server, as far as a worker sees one: it says what it is told to, and keeps what it hears."""

    def __init__(self) -> None:
        self.registered = asyncio.Event()
        self.registration: Any = None
        self._heard: list[Any] = []
        self._news = asyncio.Condition()
        self._socket: web.WebSocketResponse

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/agent", self._agent)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _agent(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type is aiohttp.WSMsgType.BINARY:
                await self._hear(proto.WorkerMessage.FromString(frame.data))
        return socket

    async def _hear(self, message: Any) -> None:
        if message.WhichOneof("message") == "register":
            self.registration = message.register
            await self._say(register=proto.RegisterWorkerResponse(worker_id="AW_1"))
            self.registered.set()
        async with self._news:
            self._heard.append(message)
            self._news.notify_all()

    async def _say(self, **message: Any) -> None:
        await self._socket.send_bytes(proto.ServerMessage(**message).SerializeToString())

    async def heard(self, what: str, **values: Any) -> Any:
        """Wait for a message of this kind with these values."""

        def find() -> Any:
            bodies = [getattr(m, what) for m in self._heard if m.WhichOneof("message") == what]
            return next((b for b in bodies if all(getattr(b, k) == v for k, v in values.items())), None)

        async with asyncio.timeout(DEADLINE * 2), self._news:
            await self._news.wait_for(lambda: find() is not None)
            return find()

    async def dispatch(self, job_id: str, what: str) -> None:
        """Offer a job, and assign it when it is accepted."""
        room = models.Room(name=f"room-{job_id}", sid="RM_1")
        job = proto.Job(id=job_id, type=proto.JobType.JT_ROOM, room=room, metadata=what)
        await self._say(availability=proto.AvailabilityRequest(job=job))
        answer = await self.heard("availability", job_id=job_id)
        assert answer.available
        await self._say(assignment=proto.JobAssignment(job=job, token="token"))

    async def terminate(self, job_id: str) -> None:
        await self._say(termination=proto.JobTermination(job_id=job_id))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[ModuleType, Notes]]:
    proc_pool = pytest.importorskip("livekit.agents.ipc.proc_pool")
    from greenroom.integrations.livekit import use_pool

    stock = proc_pool.ProcPool
    use_pool()
    yield from load_agent(tmp_path)
    proc_pool.ProcPool = stock


async def test_a_workers_whole_life(agent: tuple[ModuleType, Notes]) -> None:
    module, notes = agent
    dispatcher = Dispatcher()
    async with dispatcher.serve() as url:
        server = module.server
        server.update_options(ws_url=url, api_key="key", api_secret="secret" * 8)
        running = asyncio.create_task(server.run())
        try:
            await _life(server, dispatcher, notes)
        finally:
            await server.aclose()
            await running


async def _life(server: Any, dispatcher: Dispatcher, notes: Notes) -> None:
    async with asyncio.timeout(DEADLINE * 3):
        await dispatcher.registered.wait()
    assert dispatcher.registration.agent_name == "dropin"

    await dispatcher.dispatch("AJ_stay", "stay")
    await dispatcher.heard("update_job", job_id="AJ_stay", status=proto.JobStatus.JS_RUNNING)
    await notes.wait_for("start", 1)
    assert [info.job.id for info in server.active_jobs] == ["AJ_stay"]

    await dispatcher.dispatch("AJ_dies", "die")
    await dispatcher.heard("update_job", job_id="AJ_dies", status=proto.JobStatus.JS_FAILED)
    await dispatcher.dispatch("AJ_raises", "raise")
    await dispatcher.heard("update_job", job_id="AJ_raises", status=proto.JobStatus.JS_FAILED)
    await dispatcher.dispatch("AJ_leaves", "leave")
    await dispatcher.heard("update_job", job_id="AJ_leaves", status=proto.JobStatus.JS_SUCCESS)

    await dispatcher.terminate("AJ_stay")
    await dispatcher.heard("update_job", job_id="AJ_stay", status=proto.JobStatus.JS_SUCCESS)
    assert ["AJ_stay"] in notes.of("session_end")
    assert server.active_jobs == []

    await dispatcher.dispatch("AJ_last", "stay")
    await dispatcher.heard("update_job", job_id="AJ_last", status=proto.JobStatus.JS_RUNNING)
    draining = asyncio.create_task(server.drain())
    await dispatcher.heard("update_worker", status=proto.WorkerStatus.WS_FULL)
    assert not draining.done()
    await dispatcher.terminate("AJ_last")
    await draining
    await dispatcher.heard("update_job", job_id="AJ_last", status=proto.JobStatus.JS_SUCCESS)


_MAIN = """
if __name__ == "__main__":
    from greenroom.integrations.livekit import use_pool
    from livekit.agents import cli

    use_pool()
    cli.run_app(server)
"""


@pytest.mark.more
async def test_livekits_command_line_serves_a_script(agent: tuple[ModuleType, Notes], tmp_path: Path) -> None:
    module, notes = agent
    script = tmp_path / "script.py"
    script.write_text(Path(module.__file__ or "").read_text() + _MAIN)
    dispatcher = Dispatcher()
    async with dispatcher.serve() as url:
        environment = os.environ | {"LIVEKIT_URL": url, "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "secret" * 8}
        worker = await asyncio.create_subprocess_exec(
            sys.executable, str(script), "start", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(DEADLINE * 3):
                await dispatcher.registered.wait()
            await dispatcher.dispatch("AJ_stay", "stay")
            await notes.wait_for("start", 1)
            worker.send_signal(signal.SIGTERM)
            await dispatcher.heard("update_worker", status=proto.WorkerStatus.WS_FULL)
            await dispatcher.terminate("AJ_stay")
            _, stderr = await asyncio.wait_for(worker.communicate(), DEADLINE)
            assert worker.returncode == 0, stderr.decode()
            assert notes.of("session_end") == [["AJ_stay"]]
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
