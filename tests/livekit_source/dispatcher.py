"""A LiveKit dispatcher that follows a test's script: the real protocol on a real socket, and whatever breaks it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable
from types import TracebackType

from aiohttp import WSMsgType, web
from livekit.protocol import agent, models
from support import DEADLINE

__all__ = ["KEY", "SECRET", "Dispatcher", "Line", "a_job", "token"]

KEY, SECRET = "key", "not-a-secret-of-anything"


class Line:
    """A worker's connection, from the dispatcher's side."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.headers = request.headers
        self.messages: list[agent.WorkerMessage] = []
        self.over = asyncio.Event()
        self._transport = request.transport
        self._changed = asyncio.Condition()

    async def read(self) -> None:
        try:
            async for frame in self.socket:
                assert frame.type is WSMsgType.BINARY, frame
                async with self._changed:
                    self.messages.append(agent.WorkerMessage.FromString(frame.data))
                    self._changed.notify_all()
        finally:
            self.over.set()

    async def expect(self, matches: Callable[[agent.WorkerMessage], object], what: str = "") -> agent.WorkerMessage:
        """Wait for the first message that matches, of all that came on this connection."""
        found: list[agent.WorkerMessage] = []

        def is_there() -> bool:
            found[:] = [message for message in self.messages if matches(message)]
            return bool(found)

        try:
            async with asyncio.timeout(DEADLINE), self._changed:
                await self._changed.wait_for(is_there)
        except TimeoutError:
            raise AssertionError(f"the worker never sent {what or 'it'}; it sent {self.messages}") from None
        return found[0]

    async def send(self, **variant: object) -> None:
        await self.socket.send_bytes(agent.ServerMessage(**variant).SerializeToString())

    async def closes(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.over.wait()

    async def registers(self, worker_id: str = "AW_1") -> agent.RegisterWorkerRequest:
        """Let it register."""
        request = (await self.expect(lambda message: message.HasField("register"), "register")).register
        await self.send(register=agent.RegisterWorkerResponse(worker_id=worker_id))
        return request

    async def ready(self, worker_id: str = "AW_1") -> Line:
        """Let it register, and wait until it is available."""
        await self.registers(worker_id)
        await self.status(lambda status: status.status == agent.WS_AVAILABLE)
        return self

    async def status(self, matches: Callable[[agent.UpdateWorkerStatus], object]) -> agent.UpdateWorkerStatus:
        found = await self.expect(
            lambda message: message.HasField("update_worker") and matches(message.update_worker), "such a status"
        )
        return found.update_worker

    # --- jobs ------------------------------------------------------------------------------------

    async def ask(self, job: agent.Job) -> None:
        await self.send(availability=agent.AvailabilityRequest(job=job))

    async def offer(self, job: agent.Job) -> agent.AvailabilityResponse:
        await self.ask(job)
        return await self.answer(job.id)

    async def answer(self, job_id: str) -> agent.AvailabilityResponse:
        found = await self.expect(
            lambda m: m.HasField("availability") and m.availability.job_id == job_id, f"an answer about {job_id}"
        )
        return found.availability

    async def assign(self, job: agent.Job, *, url: str | None = None) -> None:
        await self.send(assignment=agent.JobAssignment(job=job, token=token(job), url=url))

    async def terminate(self, job_id: str) -> None:
        await self.send(termination=agent.JobTermination(job_id=job_id))

    async def update(self, job_id: str, status: int) -> agent.UpdateJobStatus:
        name = agent.JobStatus.Name(status)
        found = await self.expect(
            lambda m: m.HasField("update_job") and (m.update_job.job_id, m.update_job.status) == (job_id, status),
            f"{name} for {job_id}",
        )
        return found.update_job

    async def runs(self, job: agent.Job) -> None:
        """Offer and assign a job, and wait until it runs."""
        assert (await self.offer(job)).available
        await self.assign(job)
        await self.update(job.id, agent.JS_RUNNING)

    def answers(self, job_id: str) -> list[bool]:
        found = [message.availability for message in self.messages if message.HasField("availability")]
        return [answer.available for answer in found if answer.job_id == job_id]

    def updates(self, job_id: str) -> list[str]:
        found = [message.update_job for message in self.messages if message.HasField("update_job")]
        return [agent.JobStatus.Name(update.status) for update in found if update.job_id == job_id]

    async def drop(self) -> None:
        """End it as a crash of the server would: without a close frame."""
        assert self._transport is not None
        self._transport.abort()
        await self.closes()


class Dispatcher:
    """Listens on a free port of 127.0.0.1; each connection waits in a queue for the test to take it.

    ``refuse_with`` is the HTTP status for whoever connects; ``twirp`` answers calls of the server's API.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.refuse_with: int | None = None
        self.attempts = 0
        self.twirp: Callable[[str, bytes], web.Response] | None = None
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._runner: web.AppRunner
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"LIVEKIT_URL": self.url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}

    async def __aenter__(self) -> Dispatcher:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the same port as before, if it was started before."""
        app = web.Application()
        app.router.add_get("/agent", self._connect)
        app.router.add_post("/twirp/{service}/{method}", self._call)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def line(self) -> Line:
        """The next connection."""
        async with asyncio.timeout(DEADLINE):
            return await self._lines.get()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self.refuse_with is not None:
            return web.Response(status=self.refuse_with)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        line = Line(socket, request)
        self._lines.put_nowait(line)
        await line.read()
        return socket

    async def _call(self, request: web.Request) -> web.Response:
        assert self.twirp is not None
        return self.twirp(request.match_info["service"], await request.read())


def a_job(
    job_id: str, *, room: str = "room", room_id: str = "", metadata: str = "", dispatch_id: str = "", name: str = ""
) -> agent.Job:
    where = models.Room(name=room, sid=room_id)
    known = {"metadata": metadata, "dispatch_id": dispatch_id, "agent_name": name}
    return agent.Job(id=job_id, type=agent.JT_ROOM, room=where, **known)


def token(job: agent.Job) -> str:
    """As a server makes one, but signed by nobody."""
    claims = {"sub": f"agent-{job.id}", "kind": "agent", "video": {"roomJoin": True, "room": job.room.name}}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b""))
