"""Many connections: none of them, and no number of them, keeps sessions or other clients out."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from faults.stage import Stage
from raw_http import connect, open_fds, request
from running_worker import RunningWorker
from support import DEADLINE

from greenroom import PoolOptions
from greenroom.server.limits import fds_needed, limits_of

MakeApp = Callable[[str], str]

NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
LIVEZ = request("GET", "/livez")


async def test_idle_connections_keep_no_session_from_its_open_files(make_app: MakeApp) -> None:
    sessions, limit = 12, 300
    options = ("--num-idle-processes", "2", "--max-jobs", str(sessions), "--rate-limit", "off")

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    async with Stage(make_app) as stage, AsyncExitStack() as stack:
        worker = await stack.enter_async_context(RunningWorker(stage.app(), *options, preexec_fn=lower))
        port = await worker.port()
        for _ in range(limit + 50):
            await stack.enter_async_context(await connect(port))
        assert open_fds(worker.pid) < limit
        for number in range(sessions):
            answer = await worker.post("stay", timeout=DEADLINE)
            assert answer.status == 201, (number, answer)
        assert (await worker.get("/pressure")).body["running"] == sessions
        assert not [line for line in worker.lines if "Traceback" in line or "open files" in line.lower().split(":")[0]]
        for _ in range(sessions):
            (await stage.next("job")).order("leave")


async def test_the_one_that_is_idle_longest_goes_first(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        await worker.get("/livez")  # the session of the test has a connection, too
        idle = [await stack.enter_async_context(await connect(port)) for _ in range(17)]
        for connection in [*idle[1:], idle[0]]:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        half = await stack.enter_async_context(await connect(port))
        half.send(b"GET /livez HTTP/1.1\r\nHost: ")
        await worker.get("/livez")
        more = [await stack.enter_async_context(await connect(port)) for _ in range(17)]
        for connection in more:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        for connection in idle[1:]:
            assert await connection.is_cut() == b""
        # Those that are left are answered.
        for connection in more:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        assert (await worker.get("/livez")).status == 200


async def test_busy_connections_stay_and_leave_room_for_other_addresses(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        streams = [await stack.enter_async_context(await connect(port)) for _ in range(18)]
        for stream in streams:
            stream.send(request("GET", "/v1/events"))
            async with asyncio.timeout(DEADLINE):
                assert (await stream.reader.readline()).split()[1] == b"200"
        async with await connect(port) as refused:
            answer = await refused.answer()
            assert (answer.status, answer.error["type"]) == (503, "too_many_connections")
            assert int(answer.headers["retry-after"]) >= 1
            assert await refused.is_cut() == b""
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            other = await stack.enter_async_context(await connect(port, source=source))
            other.send(LIVEZ)
            assert (await other.answer()).status == 200
        for stream in streams:
            async with asyncio.timeout(DEADLINE):
                await stream.reader.readuntil(b"event: Levels")
        await streams[0].__aexit__()
        async with asyncio.timeout(DEADLINE):
            while True:
                async with await connect(port) as again:
                    again.send(LIVEZ)
                    if (await again.answer()).status == 200:
                        break
        assert [line for line in worker.lines if "max_connections" in line]
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_crowd_from_one_address_pushes_out_its_own(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "0", "--max-connections", "20", "--rate-limit", "off")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        first = await stack.enter_async_context(await connect(port, source="127.0.0.2"))
        first.send(LIVEZ)
        assert (await first.answer()).status == 200
        for _ in range(100):
            await stack.enter_async_context(await connect(port))
        first.send(LIVEZ)
        assert (await first.answer()).status == 200


async def test_without_open_files_the_worker_waits_and_goes_on(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker, AsyncExitStack() as stack:
        port = await worker.port()
        await worker.get("/livez")
        before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        idle = [await stack.enter_async_context(await connect(port)) for _ in range(10)]
        for connection in idle:
            connection.send(LIVEZ)
            assert (await connection.answer()).status == 200
        taken = set(map(int, os.listdir(f"/proc/{worker.pid}/fd")))
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (min(set(range(max(taken) + 2)) - taken), before[1]))
        # Idle ones go for new ones here, too.
        for _ in range(3):
            new = await stack.enter_async_context(await connect(port))
            new.send(LIVEZ)
            assert (await new.answer()).status == 200
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
        assert (await worker.get("/livez")).status == 200
        await worker.logs("open files")
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_the_worker_says_what_its_limits_allow(make_app: MakeApp) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))

    options = ("--num-idle-processes", "0", "--max-jobs", "200", "--log-format", "json")
    async with RunningWorker(make_app(NOOP), *options, preexec_fn=lower) as worker:
        found = await worker.logs(r'"event": ?"limits".*')
        for field in ('"connections"', '"sessions"', '"fds"'):
            assert field in found.string
        assert "max_jobs=200" in (await worker.logs(r'"event": ?"too_few_fds".*')).string


@pytest.mark.parametrize("files", [None, 100_000, 2_000, 1_024, 400, 100, 20])
@pytest.mark.parametrize("jobs", [1, 100, 1_000])
def test_sessions_come_before_connections_and_some_connections_before_the_last_session(
    files: int | None, jobs: int
) -> None:
    options = PoolOptions(max_jobs=jobs)
    limits = limits_of(files, options, 1_000)
    assert 1 <= limits.connections <= 1_000
    assert 0 <= limits.sessions <= jobs
    if files is None:
        assert (limits.connections, limits.sessions) == (1_000, jobs)
    elif limits.sessions == jobs:
        assert fds_needed(options) + limits.connections <= files
    else:
        assert limits.connections <= 32
        assert fds_needed(options) + limits.connections > files
