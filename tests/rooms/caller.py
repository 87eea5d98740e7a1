"""A caller: a real participant that a test drives, in a process of its own (``participant.py``)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from support import DEADLINE

__all__ = ["Caller", "Event"]

PARTICIPANT = Path(__file__).with_name("participant.py")

Event = dict[str, Any]
"""``event``, its kind; ``at``, monotonic seconds; the rest depends on the kind: see ``participant.py``."""


class Caller:
    """``async with Caller(url, token) as caller``: it joins, and has hung up at the end of the block.

    ``say`` is what it says as soon as it has joined: a tone of so many hertz, or the path of a WAV file. Whoever is
    ``muted`` publishes nothing, not even silence, before it is told to say something.
    """

    def __init__(self, url: str, token: str, *, say: int | str | None = None, muted: bool = False) -> None:
        self._join = {"url": url, "token": token, "muted": muted}
        self._say = say
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[tuple[None, None]]
        self._changed = asyncio.Condition()
        self._ended = False
        self.events: list[Event] = []
        self.errors: list[str] = []

    async def __aenter__(self) -> Caller:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(PARTICIPANT), stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 20
        )
        self._reading = asyncio.gather(self._read_events(), self._read_errors())
        await self._tell("join", **self._join)
        if self._say is not None:
            await self.say(self._say)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            print(self._account())
        try:
            async with asyncio.timeout(DEADLINE):
                await self.hang_up()
        except TimeoutError:
            self.kill()
        finally:
            await self._process.wait()
            await self._reading

    @property
    def pid(self) -> int:
        return self._process.pid

    # --- what it does ----------------------------------------------------------------------------

    async def say(self, what: int | str) -> None:
        await self._tell("say", what=what)

    async def hush(self) -> None:
        await self._tell("hush")

    async def send(self, text: str) -> None:
        """A data message to all others in the room."""
        await self._tell("data", text=text)

    async def hang_up(self) -> None:
        """Leave the room in good order and end; returns when that has happened."""
        if self._process.returncode is None:
            await self._tell("hang_up")
            await self._process.wait()

    def kill(self) -> None:
        """It is gone without a word, as when a phone's battery is empty."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    async def _tell(self, order: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError):  # it has ended, which the next awaited event will say
            self._process.stdin.write(json.dumps({"do": order, **fields}).encode() + b"\n")
            await self._process.stdin.drain()

    # --- what happens to it ----------------------------------------------------------------------

    async def event(self, kind: str, /, *, count: int = 1, deadline: float = DEADLINE, **fields: Any) -> Event:
        """Wait for the ``count``-th event of a kind whose fields are as given; those that have been count as well."""

        def matches(event: Event) -> bool:
            return event["event"] == kind and all(event.get(name) == value for name, value in fields.items())

        return await self._await(matches, f"{kind} with {fields}", count, deadline)

    async def connected(self) -> Event:
        return await self.event("connected")

    async def joined(self, identity: str) -> Event:
        """Another participant is in the room."""
        return await self.event("joined", identity=identity)

    async def agent(self, *, count: int = 1) -> Event:
        """An agent, whatever its name, is in the room."""
        return await self.event("joined", kind="agent", count=count)

    async def attributes(self, identity: str, *names: str) -> dict[str, str]:
        """The attributes of another participant, once it has set those that are named."""

        def matches(event: Event) -> bool:
            return event.get("identity") == identity and event.get("attributes", {}).keys() >= set(names)

        found: dict[str, str] = (await self._await(matches, f"{identity} with {names}"))["attributes"]
        return found

    async def hears(self, identity: str, *, count: int = 1) -> Event:
        """It hears the ``count``-th utterance of another participant; ``since`` is when that began."""
        return await self.event("heard", identity=identity, count=count)

    async def hears_tone(self, identity: str, hertz: int) -> None:
        """It hears a steady tone of another participant."""

        def matches(event: Event) -> bool:
            return (event["event"], event.get("identity")) == ("tone", identity) and abs(event["hertz"] - hertz) < 15

        await self._await(matches, f"tone of {hertz} Hz from {identity}")

    async def _await(
        self, matches: Callable[[Event], bool], what: str, count: int = 1, deadline: float = DEADLINE
    ) -> Event:
        found: list[Event] = []

        def is_there() -> bool:
            found[:] = [event for event in self.events if matches(event)]
            return len(found) >= count or self._ended

        with suppress(TimeoutError):
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(is_there)
        assert len(found) >= count, f"there was no {what} (number {count}); {self._account()}"
        return found[count - 1]

    def _account(self) -> str:
        events = "\n".join(json.dumps(event) for event in self.events)
        return f"the caller's events were\n{events}\nand it said\n" + "\n".join(self.errors)

    async def _read_events(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip())
