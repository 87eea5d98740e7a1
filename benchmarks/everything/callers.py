"""A process that calls: ``python callers.py`` holds many callers, each in a room of its own.

LiveKit's native runtime leaves threads behind, which must not live in the process that soaks. Lines of JSON on stdin:
``{"room": ..., "url": ..., "token": ..., "seconds": ...}``. A caller says nothing. It waits for an agent's sign, an
attribute that holds the job's id and the room's name; then until the agent has left, and hangs up. Lines of JSON on
stdout: ``{"room": ..., "event": "joined" | "sign" | "over" | "failed", "at": ..., "job": ..., "why": ...}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from livekit import rtc

LONGEST_CALL = 40.0
CONNECT = 20.0


def print_event(room: str, event: str, **fields: Any) -> None:
    # In one write: what the native library logs meanwhile must not come before the end of the line.
    os.write(1, json.dumps({"room": room, "event": event, "at": time.time(), **fields}).encode() + b"\n")


class Caller:
    """One caller: from the join until the agent has left, or none has come in time."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._room = rtc.Room()
        self._signed, self._left = asyncio.Event(), asyncio.Event()
        self._room.on("participant_connected", self._look)
        self._room.on("participant_attributes_changed", lambda changed, who: self._look(who))
        self._room.on("participant_disconnected", lambda who: self._left.set())
        self._room.on("disconnected", lambda reason: self._left.set())

    async def call(self, url: str, token: str) -> None:
        try:
            async with asyncio.timeout(CONNECT):
                await self._room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
        except (TimeoutError, rtc.ConnectError) as error:
            print_event(self._name, "failed", why=repr(error))
            return
        print_event(self._name, "joined")
        for who in self._room.remote_participants.values():
            self._look(who)
        try:
            async with asyncio.timeout(self._seconds):
                await self._signed.wait()
            async with asyncio.timeout(LONGEST_CALL):
                await self._left.wait()
        except TimeoutError:
            pass  # the account says whether that can be
        await self._room.disconnect()
        print_event(self._name, "over")

    def _look(self, who: rtc.RemoteParticipant) -> None:
        job_id, _, room = who.attributes.get("sign", "").partition(" ")
        if room == self._name and not self._signed.is_set():
            self._signed.set()
            print_event(self._name, "sign", job=job_id)


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    calls = set[asyncio.Task[None]]()
    async for line in reader:
        request = json.loads(line)
        call = asyncio.create_task(Caller(request["room"], request["seconds"]).call(request["url"], request["token"]))
        calls.add(call)
        call.add_done_callback(calls.discard)
    for call in calls:
        call.cancel()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the native runtime's own exit handlers abort the process now and then
