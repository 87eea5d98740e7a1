"""The real command in a process of its own: what it logs, its API, and the signals it gets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
import commands
from support import DEADLINE, eventually

from greenroom.system import prctl

__all__ = ["Answer", "RunningWorker", "orphans"]

MOST_REPEATS = 20
PAUSE = 0.3
"""Seconds. A worker that stood still takes jobs again after 0.1 s."""


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any
    text: str = ""

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.body["error"]
        return error


class RunningWorker:
    """``greenroom start APP --port 0 ...``; ended by SIGKILL, if the test did not end it."""

    def __init__(
        self,
        app: str,
        *options: str,
        command: str = "start",
        stdin: int | None = None,
        wrapper: tuple[str, ...] = (),
        **spawn: Any,
    ) -> None:
        self._command = [command, app, "--port", "0", *options]
        self._wrapper = wrapper
        self._stdin = asyncio.subprocess.DEVNULL if stdin is None else stdin
        self._spawn: dict[str, Any] = spawn
        self._process: asyncio.subprocess.Process | commands.Forked
        self._session: aiohttp.ClientSession
        self._reading: asyncio.Task[None]
        self._changed = asyncio.Condition()
        self.lines: list[str] = []

    async def __aenter__(self) -> RunningWorker:
        # What it leaves behind comes to this process, so that none of it can be overlooked.
        prctl.set_child_subreaper()
        self._before = set(commands.children())
        self._process = await self._run(
            *self._command, stdin=self._stdin, stderr=asyncio.subprocess.PIPE, limit=1 << 20, **self._spawn
        )
        self._reading = asyncio.create_task(self._read())
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE * 2))
        return self

    async def _run(self, *command: str, **spawn: Any) -> asyncio.subprocess.Process | commands.Forked:
        if self._wrapper:
            return await asyncio.create_subprocess_exec(*self._wrapper, commands.GREENROOM, *command, **spawn)
        return await commands.start(*command, **spawn)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            print("\n".join(self.lines), file=sys.stderr)
        await self._session.close()
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading
        await eventually(lambda: not set(orphans()) - self._before, "end of what the worker had left running")

    def has_nothing_to_do_with(self, pid: int) -> None:
        """Of a process that the test started after this worker: not to be taken for one that was left running."""
        self._before.add(pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    # --- the log ---------------------------------------------------------------------------------

    async def logs(self, pattern: str, *, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines of its log match, and return the last of these matches."""
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            found[:] = [match for line in self.lines if (match := re.search(pattern, line))]
            return len(found) >= count or self._reading.done()

        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(is_there)
        assert len(found) >= count, f"it ended without {pattern!r} in its log"
        return found[count - 1]

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            await self._note(line.decode().rstrip())
        async with self._changed:
            self._changed.notify_all()

    async def _note(self, line: str) -> None:
        async with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    async def ends(self) -> int:
        """Wait for its end; returns its exit code. When it has ended, nothing is left running."""
        code = await self.exit_code()
        left = [pid for pid in commands.children() if pid != self.pid and pid not in self._before]
        assert not left, f"left running: {left}"
        return code

    async def exit_code(self) -> int:
        """Wait for its end, where this process may have other children."""
        async with asyncio.timeout(DEADLINE):
            code = await self._process.wait()
            await self._reading
        return code

    # --- the API ---------------------------------------------------------------------------------

    async def url(self) -> str:
        """Where it listens, once it has said so."""
        return (await self.logs(r"(https?://[\d.]+:\d+), with"))[1]

    async def port(self) -> int:
        return int((await self.url()).rpartition(":")[2])

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        """Ask, and ask again as a proxy would, if the worker says that it stood still: the machine may be busy."""
        answer = await self._ask_once(method, path, **request)
        for _ in range(MOST_REPEATS):
            if answer.status != 503 or (answer.body or {}).get("error", {}).get("reason") != "stalled":
                break
            await asyncio.sleep(PAUSE)
            answer = await self._ask_once(method, path, **request)
        return answer

    async def _ask_once(self, method: str, path: str, **request: Any) -> Answer:
        async with self._session.request(method, f"{await self.url()}{path}", **request) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None, response.headers, text)

    async def fetch(self, method: str, path: str, **request: Any) -> Answer:
        """The same, for an answer that need not be JSON."""
        async with self._session.request(method, f"{await self.url()}{path}", **request) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answer(response.status, json.loads(text) if is_json else None, response.headers, text)

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)

    async def post(self, metadata: Any = None, **order: Any) -> Answer:
        return await self.ask("POST", "/v1/jobs", json={"metadata": metadata, **order})

    async def start(self, metadata: Any = None, **order: Any) -> dict[str, Any]:
        """Start a job that must start, however late."""
        answer = await self.post(metadata, **{"timeout": DEADLINE, **order})
        assert answer.status == 201, answer
        job: dict[str, Any] = answer.body
        return job

    async def report(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end."""
        answer = await self.get(f"/v1/jobs/{job_id}?wait={DEADLINE:g}")
        assert answer.status == 200, answer
        report: dict[str, Any] = answer.body["report"]
        return report

    async def report_to_come(self, job_id: str) -> asyncio.Task[dict[str, Any]]:
        """Ask for a job's report, and return when the worker holds the request: it may end now, and answers first.

        The client closes its sending side, so that the worker sends the first byte of its answer ahead.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", await self.port())
        writer.write(f"GET /v1/jobs/{job_id}?wait={DEADLINE:g} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        writer.write_eof()
        assert await reader.readexactly(1) == b"H"
        return asyncio.create_task(_report_in(reader, writer))

    async def until(self, path: str, condition: Callable[[Answer], object]) -> Answer:
        """Ask until the answer is as it should be."""
        async with asyncio.timeout(DEADLINE):
            while not condition(answer := await self.get(path)):
                await asyncio.sleep(0.01)
        return answer


def orphans() -> list[int]:
    """The processes that came to this one when a worker died; the dead are reaped."""
    for pid in commands.children():
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return commands.children()


async def _report_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b" 200 " in head, head
    report: dict[str, Any] = json.loads(body)["report"]
    return report
