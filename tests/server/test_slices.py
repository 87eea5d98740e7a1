"""Lists of many jobs are made a few in a turn of the event loop, and are true all the same."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from admissions import boundless_admission
from aiohttp import ClientSession, web
from support import DEADLINE, eventually

from greenroom import ExitReport, Job, JobHandle, ProcessPool, Timings
from greenroom.pool.events import JobAccepted, JobEnded, JobStarted
from greenroom.server.history.history import History
from greenroom.server.job_registry import JobRegistry
from greenroom.server.slices import Slices
from greenroom.server.telemetry.overview import Overview
from greenroom.server.telemetry.snapshot import Snapshot
from greenroom.server.web.routes.events import About, EventsApi
from greenroom.server.web.routes.jobs import JobsApi
from greenroom.server.worker_identity import WorkerIdentity

MakeApp = Callable[[str], str]
APP = """
@app.entrypoint
async def entrypoint(ctx):
    await asyncio.sleep(3600)
"""
NOW = 1_000_000.0


class Turns:
    """Counter of the turns of the event loop, and of what is done in each."""

    def __init__(self) -> None:
        self.number = 0
        self.done: Counter[int] = Counter()

    def note(self, item: Any) -> Any:
        self.done[self.number] += 1
        return item

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal handle
            self.number += 1
            handle = loop.call_soon(turn)

        handle = loop.call_soon(turn)
        try:
            yield
        finally:
            handle.cancel()


# --- slices ---------------------------------------------------------------------------------------


async def test_one_slice_is_done_in_a_turn_whoever_asks() -> None:
    turns, slices = Turns(), Slices(5)
    async with turns.counted():
        made = await asyncio.gather(*(slices.map(turns.note, range(23)) for _ in range(4)))
    assert made == [list(range(23))] * 4
    assert max(turns.done.values()) <= 5


async def test_the_first_ones_are_found_and_no_more_are_looked_at() -> None:
    turns, slices = Turns(), Slices(5)
    async with turns.counted():
        found = await slices.first(lambda item: turns.note(item) if item % 2 else None, range(1000), 7)
    assert found == [1, 3, 5, 7, 9, 11, 13]
    assert turns.done.total() == 7  # those of three slices, the last of which has one too many
    assert max(turns.done.values()) <= 5


async def test_who_gives_up_leaves_the_turn_to_the_others() -> None:
    slices = Slices(1)
    one, other = (asyncio.create_task(slices.map(str, range(100))) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert await other == [str(number) for number in range(100)]
    with pytest.raises(asyncio.CancelledError):
        await one


# --- the jobs of a history ------------------------------------------------------------------------


@asynccontextmanager
async def some_jobs(app: str, count: int) -> AsyncIterator[tuple[ProcessPool, JobRegistry, History]]:
    pool = ProcessPool(app, num_idle_processes=count)
    registry = JobRegistry()
    history = History(pool, registry.live)
    async with pool:
        for number in range(count):
            handle: JobHandle = await pool.launch(Job(f"live-{number}"), timeout=DEADLINE)
            registry.add(handle)
        yield pool, registry, history
        for handle in registry.live():
            handle.cancel()
        await registry.settled()


async def test_the_figures_of_live_jobs_take_a_turn_for_each_slice(make_app: MakeApp) -> None:
    async with some_jobs(make_app(APP), 6) as (_, registry, history):
        turns = Turns()
        overview = Overview(history, registry.live, Slices(2))
        async with turns.counted():
            figures = await overview.live_figures(turns.note)
            jobs = await overview.latest(400, turns.note)
            before = turns.number
            totals = await overview.totals()
            taken = turns.number - before
        assert set(figures) == {f"live-{number}" for number in range(6)}
        assert [job["id"] for job in jobs] == [f"live-{number}" for number in range(6)]
        assert (turns.done.total(), max(turns.done.values())) == (12, 2)
        assert taken >= 3
        assert totals.oldest_seconds > 0


async def test_a_list_of_jobs_takes_a_turn_for_each_slice(make_app: MakeApp) -> None:
    async with (
        some_jobs(make_app(APP), 6) as (_, registry, history),
        a_list(JobsApi(registry, history, WorkerIdentity("here"), Slices(2))) as (ask, taken),
    ):
        assert [job["id"] for job in await ask("")] == [f"live-{number}" for number in range(6)]
        jobs = await ask("?limit=2")
        assert [job["id"] for job in jobs] == ["live-4", "live-5"]
        assert all(job["state"] == "running" and job["started"] for job in jobs)
        assert taken[0] >= 3
        assert taken[1] < taken[0]


async def test_a_job_that_ends_while_the_list_is_made_is_shown_as_ended(make_app: MakeApp) -> None:
    """The list is made from the latest job to the oldest, so the oldest has the longest time to end."""
    slices = Slices(1)
    async with (
        some_jobs(make_app(APP), 3) as (_, registry, history),
        a_list(JobsApi(registry, history, WorkerIdentity("here"), slices)) as (ask, _),
    ):
        oldest = registry.live()[0]
        async with slices._turn:  # the list waits for its turn
            listing = asyncio.create_task(ask(""))
            await eventually(lambda: slices._turn._waiters, "the list that waits")
            oldest.cancel()
            await oldest.wait()
        jobs = await listing
        assert [job["id"] for job in jobs] == ["live-0", "live-1", "live-2"]
        assert (jobs[0]["state"], jobs[0]["outcome"]) == ("ended", "cancelled")


@asynccontextmanager
async def a_list(api: JobsApi) -> AsyncIterator[tuple[Callable[[str], Awaitable[list[dict[str, Any]]]], list[int]]]:
    """Serve the list of jobs. Yields what asks for it, and the turns that each answer has taken."""
    turns, taken = Turns(), list[int]()

    async def handle(request: web.Request) -> web.Response:
        before = turns.number
        answer = await api.list_jobs(request)
        taken.append(turns.number - before)
        return answer

    async with serving("/v1/jobs", handle) as url, ClientSession() as session, turns.counted():

        async def ask(query: str) -> list[dict[str, Any]]:
            async with session.get(url + query) as answer:
                jobs: list[dict[str, Any]] = (await answer.json())["jobs"]
                return jobs

        yield ask, taken


async def test_what_happens_while_a_list_is_made_is_in_it() -> None:
    """The jobs of a pool that publishes events, one of which comes after the job's own slice."""
    pool = ProcessPool("an_app_that_is_never_loaded")
    history = History(pool, lambda: ())
    overview = Overview(history, lambda: (), Slices(1))
    for number in range(3):
        pool.publish(_accepted(f"job-{number}"))
    await asyncio.sleep(0)
    shown = Counter[str]()

    def show(brief: dict[str, Any]) -> dict[str, Any]:
        shown[brief["id"]] += 1
        if brief["id"] == "job-2" and shown["job-2"] == 1:  # the last slice
            pool.publish(_started("job-0"))
            pool.publish(_ended("job-1"))
            pool.publish(_accepted("job-3"))
        return brief

    jobs = await overview.latest(400, show)
    assert [job["id"] for job in jobs] == ["job-0", "job-1", "job-2", "job-3"]
    assert [job["pid"] for job in jobs] == [77, None, None, None]
    assert [job["outcome"] for job in jobs] == [None, "cancelled", None, None]
    assert shown == {"job-0": 2, "job-1": 2, "job-2": 1, "job-3": 1}  # what did not change was made once


def _accepted(job_id: str) -> JobAccepted:
    return JobAccepted(job_id, "http", "warm", at=NOW)


def _started(job_id: str) -> JobStarted:
    return JobStarted(job_id, "http", "1-1", 77, 1, "warm", 0.001, 0.0, at=NOW + 1)


def _ended(job_id: str) -> JobEnded:
    times = Timings(NOW, NOW, NOW, NOW + 2)
    return JobEnded(ExitReport("cancelled", "cancelled", "enough", times, job_id=job_id), "http", at=NOW + 2)


# --- the stream of events -------------------------------------------------------------------------


async def test_no_event_is_both_in_the_board_and_after_it(make_app: MakeApp) -> None:
    """A job starts while the board is made: it is in the board, and its events do not come again."""
    slices = Slices(1)
    async with some_jobs(make_app(APP), 2) as (pool, registry, history):
        overview, admission = Overview(history, registry.live, slices), boundless_admission(pool, registry, 1.0)
        api = EventsApi(pool, Snapshot(pool, history.metadata_of), overview, admission, About("app", False))
        async with a_stream(api) as next_frame:
            async with slices._turn:
                reading = asyncio.create_task(next_frame())
                await eventually(lambda: slices._turn._waiters, "the board that waits for its turn")
                registry.add(await pool.launch(Job("meanwhile"), timeout=DEADLINE))
            name, board = await reading
            assert name == "board"
            pids = {session["id"]: session["pid"] for session in board["sessions"]}
            assert list(pids) == ["live-0", "live-1", "meanwhile"]
            assert all(pids.values())
            registry.add(await pool.launch(Job("later"), timeout=DEADLINE))
            started = []
            while "later" not in started:
                name, data = await next_frame()
                started += [data["job_id"]] if name in ("JobAccepted", "JobStarted") else []
            assert set(started) == {"later"}
        api.close()


@asynccontextmanager
async def a_stream(api: EventsApi) -> AsyncIterator[Callable[[], Awaitable[tuple[str, Any]]]]:
    """Read a stream of events. Yields what returns the name and the data of the next one."""
    async with serving("/v1/events", api.stream_events) as url, ClientSession() as session, session.get(url) as stream:

        async def next_frame() -> tuple[str, Any]:
            frame = (await stream.content.readuntil(b"\n\n")).decode()
            lines = dict(line.split(": ", 1) for line in frame.strip().splitlines())
            return lines["event"], json.loads(lines["data"])

        yield next_frame


@asynccontextmanager
async def serving(path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve one operation on a port of its own. Yields its address."""
    app = web.Application()
    app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    finally:
        await runner.cleanup()
