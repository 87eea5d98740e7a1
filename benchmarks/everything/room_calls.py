"""Calls by a real LiveKit server: rooms to which an agent is dispatched, and callers that look for its sign."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rooms.livekit_server import LiveKitServer

from greenroom.system import prctl

from .account import Account
from .client import Client
from .http_calls import NETWORK, fetch_end
from .ledger import Call, RoomCall

__all__ = ["AGENT", "RoomCalls"]

AGENT = "soak"
WAIT_FOR_SIGN = 12.0
"""Seconds: a LiveKit server asks for at most 2.8 s, and an agent joins within a few, on a busy machine."""


class RoomCalls:
    """``async with RoomCalls(...)``: a process full of callers."""

    def __init__(self, server: LiveKitServer, client: Client, account: Account, seed: int) -> None:
        self.count = 0
        self.failed = 0
        """Callers whom the LiveKit server did not let in, in time: nothing of the worker's."""
        self._server, self._client, self._account = server, client, account
        self._chance = random.Random(f"{seed} rooms")
        self._heard: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._reports: dict[str, asyncio.Task[None]] = {}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> RoomCalls:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("callers.py")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            preexec_fn=prctl.set_parent_death_signal,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading
        for task in self._reports.values():
            task.cancel()
        await asyncio.gather(*self._reports.values(), return_exceptions=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if queue := self._heard.get(event["room"]):
                queue.put_nowait(event)
        for queue in self._heard.values():
            queue.put_nowait({"event": "failed", "at": time.time(), "why": "the callers' process ended"})

    async def line(self, until: asyncio.Event, pause: float) -> None:
        """Make one call after the other until the event is set."""
        while not until.is_set():
            await self._one()
            await asyncio.sleep(self._chance.uniform(0.0, pause))

    async def _one(self) -> None:
        self.count += 1
        seconds = self._chance.choice((0.0, 0.5, 2.0, 4.0))
        name = f"soak-{self.count}-{self._chance.getrandbits(32):08x}-{seconds:g}"
        room, queue = RoomCall(name, name), self._heard.setdefault(name, asyncio.Queue())
        token = self._server.tokens.caller("ann", name, agents=[AGENT])  # dispatched as this join makes the room
        request = {"room": name, "url": self._server.url, "token": token, "seconds": WAIT_FOR_SIGN}
        self._account.ledger.note(time.time(), f"call   {name}")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        try:
            await self._follow(room, queue)
        finally:
            del self._heard[name]
        if not room.joined:
            self.failed += 1
            return
        await self._fetch_jobs(room)
        self._account.settle_room(room)

    async def _follow(self, room: RoomCall, queue: asyncio.Queue[dict[str, Any]]) -> None:
        while True:
            event = await queue.get()
            self._account.ledger.note(event["at"], f"caller {event['event']} {room.room} {event.get('job', '')}")
            match event["event"]:
                case "joined":
                    room.joined = event["at"]
                case "sign":
                    room.sign, room.signed = event["job"], event["at"]
                    self._await_report(room, event["job"])
                case _:
                    room.gave_up = event["at"]
                    return

    def _await_report(self, room: RoomCall, job_id: str) -> None:
        """Ask for a job's report now: a worker that is drained answers that, and is gone then."""
        call = Call(job_id, "room", room.nonce, room.joined - 1.0, "accepted", answered=time.time())
        room.jobs.append(call)
        self._reports[job_id] = asyncio.create_task(fetch_end(self._client, call))

    async def _fetch_jobs(self, room: RoomCall) -> None:
        """Fetch the reports of all jobs that the room had; those which the worker took with it are found by entry."""
        ids: set[str] = set()
        with suppress(*NETWORK):
            status, answer = await self._client.ask("GET", f"/v1/jobs?label=room={room.room}")
            ids = {job["id"] for job in answer["jobs"]} if status == 200 else ids
        self._account.read_entries()
        ids |= {entry.job_id for entry in self._account.ledger.entered(room.room)}
        for job_id in ids - {call.id for call in room.jobs}:
            self._await_report(room, job_id)
        for call in room.jobs:
            await self._reports.pop(call.id)
            self._account.end_by_events(call)
