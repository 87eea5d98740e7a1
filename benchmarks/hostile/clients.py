"""The honest clients: they start sessions, wait for their ends, and keep the book of all sessions."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import aiohttp

from .account import ACCEPTED, ANY, Session
from .worker import Worker

PATIENCE = 5.0
"""Seconds that a start may wait for a process, as its ``timeout`` says."""
GIVE_UP = 30.0
BOOK_EVERY = 3.0
FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class Clients:
    """Speaks for all honest callers. Each request has a connection of its own."""

    def __init__(self, worker: Worker) -> None:
        self.sessions: dict[str, Session] = {}
        self._worker = worker
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Clients:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._http = aiohttp.ClientSession(self._worker.url, connector=connector, headers=self._worker.headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def call(self, kind: str, seconds: float) -> asyncio.Task[None]:
        """Start an honest session and follow it to its end."""
        session = Session(f"{kind}-{secrets.token_hex(5)}", kind, "completed", nonce=secrets.token_hex(8))
        self.sessions[session.id] = session
        return self._spawn(self._serve(session, seconds))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, session: Session, seconds: float) -> None:
        metadata = {"role": "honest", "seconds": seconds, "nonce": session.nonce}
        begin = time.monotonic()
        session.answer = await self._start({"id": session.id, "metadata": metadata, "timeout": PATIENCE})
        session.seconds, session.at = time.monotonic() - begin, time.time()
        if session.answer == ACCEPTED:
            await self._follow(session)

    async def _start(self, body: dict[str, Any]) -> str:
        try:
            status, answer = await self._ask("POST", "/v1/jobs", GIVE_UP, json=body)
        except FAILURES as error:
            return f"no answer ({type(error).__name__})"
        error = answer.get("error") or {}
        return ACCEPTED if status == 201 else str(error.get("reason") or error.get("type") or status)

    async def _ask(self, method: str, path: str, seconds: float, **options: Any) -> tuple[int, Any]:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._http.request(method, path, timeout=timeout, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def _follow(self, session: Session) -> None:
        """Ask for the session's report until it is there, or nobody knows of it."""
        while session.reason is None and self._worker.ended is None:
            try:
                status, answer = await self._ask("GET", f"/v1/jobs/{session.id}?wait=60", 60 + GIVE_UP)
            except FAILURES:
                await asyncio.sleep(0.5)
                continue
            if status == 404:
                return
            if status == 200 and answer.get("report"):
                _note(session, answer["report"])

    async def until_idle(self, count: int) -> None:
        """Wait until so many processes wait for a session."""
        async with asyncio.timeout(60):
            while (await self._ask("GET", "/v1/pool", GIVE_UP))[1]["idle"] < count:
                await asyncio.sleep(0.1)

    async def settle(self, seconds: float) -> None:
        """Wait until each session that was accepted has its report, or the time is up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._worker.ended is None:
            open_ends = [each for each in self.sessions.values() if each.answer == ACCEPTED and each.reason is None]
            if not open_ends and not self._tasks:
                return
            await self.keep_book()
            await asyncio.sleep(0.2)

    async def keep_book(self) -> None:
        """Note how the attackers' sessions have ended. Their results are not asked for: they are large."""
        try:
            status, answer = await self._ask("GET", "/v1/jobs?state=ended&limit=400", GIVE_UP)
        except FAILURES:
            return
        for job in answer["jobs"] if status == 200 else ():
            session = self.sessions.get(job["id"])
            if session is not None and not session.is_honest:
                session.pid, session.reason, session.at = job["pid"], job["reason"], time.time()

    async def keep_book_forever(self) -> None:
        while True:
            await asyncio.sleep(BOOK_EVERY)
            await self.keep_book()

    def add(self, facts: dict[str, Any]) -> None:
        """Enter a session that an attack has started."""
        session = Session(
            facts["id"], facts["kind"], facts.get("wants", ANY), answer=facts["answer"], seconds=facts["seconds"]
        )
        self.sessions[session.id] = session


def _note(session: Session, report: dict[str, Any]) -> None:
    session.at = time.time()
    session.pid, session.reason, session.detail = report["pid"], report["reason"], report["detail"]
    session.result, session.result_dropped = report["result"], report["result_dropped"]
