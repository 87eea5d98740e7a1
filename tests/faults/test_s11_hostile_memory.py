"""S11: a session attacks the memory it shares with the supervisor, or the supervisor's own. Only it is harmed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from forged import FIND_CHANNEL
from stage import Stage, assert_recovered
from support import eventually

from greenroom import JobHandle, ProcessPool
from greenroom.pool.shell.child_client import MOST_DROPS_PER_SECOND
from greenroom.pool.shell.transit import RESERVED, TOTAL
from greenroom.system import crash_stacks

MakeApp = Callable[[str], str]

TRUNCATE = """
def parents():
    pid = os.getpid()
    while pid > 1:
        yield pid
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        return await on_stage("job")
    found = []
    for pid in parents():
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            path = f"/proc/{pid}/fd/{name}"
            try:
                if "greenroom-heartbeat" not in os.readlink(path):
                    continue
                fd = os.open(path, os.O_RDWR)
            except OSError:
                continue
            for size in (0, 1 << 20):
                try:
                    os.ftruncate(fd, size)
                    found.append("truncated")
                except PermissionError:
                    found.append("refused")
            found.append(os.fstat(fd).st_size)
            os.close(fd)
    return found
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_S11_a_session_truncates_every_heartbeat_page_it_finds(make_app: MakeApp, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(TRUNCATE), num_idle_processes=2, start_method=start_method, stall_timeout=30) as pool,
    ):
        other = await pool.launch("stay")
        visit = await stage.next("job")
        report = await (await pool.launch()).wait()
        assert report.outcome == "succeeded", report
        size = os.sysconf("SC_PAGE_SIZE") + crash_stacks.MAX_BYTES
        assert {"refused", size} == set(report.result), "it found pages, and none has changed its size"
        visit.order("fine")
        assert (await other.wait()).result == "fine"
        await assert_recovered(pool, 2)


CLAIM = """
import mmap

@app.entrypoint
async def entrypoint(ctx):
    for line in open("/proc/self/maps"):
        if "greenroom-heartbeat" in line:
            start = int(line.split("-")[0], 16)
            ctypes.memset(start + 16, 0xFF, 8)
    os._exit(0)
"""


async def test_S11_a_page_claims_more_drops_than_there_can_be(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(CLAIM), num_idle_processes=1) as pool:
        report = await (await pool.launch()).wait()
        lived = report.timings.ended - report.timings.requested + 60  # and the time from its fork to the request
        assert 0 < report.log_records_dropped <= lived * MOST_DROPS_PER_SECOND


SEND_PARTS = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata != "part":
        return b"x" * (ctx.job.metadata or 10)
    data = frame(kind=KIND["Ended"], header=b'{{"how":"completed","told":false,"error":null}}', body=b"b" * (40 << 20))
    note("sending")
    control = channel(socket.SOCK_STREAM)
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(control, data[:-1])
    await on_stage("sent")
    await loop.sock_sendall(control, data[-1:])
    await asyncio.sleep(1000)
"""


async def test_S11_unfinished_results_have_a_sum(make_app: MakeApp) -> None:
    """Six sessions send all but the end of 40 MiB: two fit into the budget. Other sessions end as they would."""
    count = 6
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(SEND_PARTS), num_idle_processes=2, shutdown_timeout=30) as pool,
    ):
        transit = pool._shell.tools.transit
        handles = [await pool.launch("part", timeout=20) for _ in range(count)]
        visits = [await stage.next("sent") for _ in range(2)]
        await eventually(lambda: transit.waiting == count - 2)
        assert transit.held_bytes <= TOTAL
        for size in (None, 100_000, 900_000):
            report = await (await pool.launch(size, timeout=20)).wait()
            assert (report.outcome, len(report.result)) == ("succeeded", size or 10)
        done = 0
        while done < count:
            visits.pop(0).order("go on")
            done += 1
            await eventually(lambda: any(handle.state == "draining" for handle in handles))
            for handle in handles:
                if handle.state == "draining":
                    os.kill(handle.pid, signal.SIGKILL)  # its result has arrived; what follows would take its time
                    await handle.wait()
            assert transit.held_bytes <= TOTAL
            if not visits and done < count:
                visits.append(await stage.next("sent"))
        reports = [await handle.wait() for handle in handles]
        assert [len(report.result) for report in reports] == [(40 << 20) - 1] * count
        assert (transit.held_bytes, transit.waiting) == (0, 0)
        await assert_recovered(pool, 2)


async def test_S11_results_of_sessions_that_do_not_exit_count_until_they_have(make_app: MakeApp) -> None:
    source = """
@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(lambda: on_stage("callback"))
    return b"x" * (60 << 20)
"""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(source), num_idle_processes=2, shutdown_timeout=40) as pool,
    ):
        transit = pool._shell.tools.transit
        handles = [await pool.launch(timeout=20) for _ in range(3)]
        for number in range(3):
            visit = await stage.next("callback")  # it begins when the result has been read
            assert transit.held_bytes <= TOTAL
            assert stage.is_empty("callback"), "one result of 60 MiB at a time"
            await eventually(lambda left=2 - number: transit.waiting == left)
            visit.order("end")
        reports = [await handle.wait() for handle in handles]
        assert [len(report.result) for report in reports] == [60 << 20] * 3
        assert transit.held_bytes == 0


LARGE = 60 << 20
RETURNS_MUCH = f"""
@app.entrypoint
async def entrypoint(ctx):
    return b"x" * {LARGE}
"""


@asynccontextmanager
async def a_result_without_room(make_app: MakeApp) -> AsyncIterator[tuple[ProcessPool, JobHandle, Callable[[], None]]]:
    """A job that has ended, and whose result waits for room. The function gives it the room."""
    options = {"job_timeout": 100, "shutdown_timeout": 100, "stall_timeout": None}
    async with ProcessPool(make_app(RETURNS_MUCH), num_idle_processes=1, **options) as pool:
        transit = pool._shell.tools.transit
        share = transit.ask(TOTAL - RESERVED, print, print)
        share.is_complete = True
        handle = await pool.launch(timeout=20)
        await eventually(lambda: transit.waiting == 1)
        yield pool, handle, partial(transit.release, share)


def pass_all_deadlines(pool: ProcessPool) -> None:
    """Let each deadline pass, and each that one of those sets: ``job_timeout``, and then ``shutdown_timeout``."""
    clock = pool._shell.tools.clock
    for _ in range(2):
        clock._now += 500
        clock.advance()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_S11_a_result_that_waits_for_room_is_not_late(make_app: MakeApp, is_cancelled: bool) -> None:
    """The memory is the pool's, so neither ``job_timeout`` nor the time after a cancel goes on meanwhile."""
    async with a_result_without_room(make_app) as (pool, handle, give_room):
        if is_cancelled:
            handle.cancel("enough")
        pass_all_deadlines(pool)
        give_room()
        report = await handle.wait()
        assert (report.outcome, report.reason, report.stack_dump) == ("succeeded", "completed", None)
        assert len(report.result) == LARGE


async def test_S11_time_goes_on_when_a_result_has_its_room(make_app: MakeApp) -> None:
    async with a_result_without_room(make_app) as (pool, handle, give_room):
        os.kill(handle.pid or 0, signal.SIGSTOP)
        pass_all_deadlines(pool)
        give_room()
        pass_all_deadlines(pool)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("killed", "job_timeout", None)


async def test_S11_a_drain_has_its_bound_though_a_result_waits_for_room(make_app: MakeApp) -> None:
    async with a_result_without_room(make_app) as (pool, handle, _):
        handle.cancel("enough")
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pass_all_deadlines(pool)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("killed", "cancelled", None)
        await closing


SEND_NONSENSE = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata != "nonsense":
        return b"x" * (60 << 20)
    control = channel(socket.SOCK_STREAM)
    control.setblocking(False)
    data = frame(kind=KIND["Ended"], header=b"not JSON", body=bytes(60 << 20))
    await asyncio.get_running_loop().sock_sendall(control, data)
    await asyncio.Event().wait()
"""


async def test_S11_results_that_make_no_sense_use_up_no_memory(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SEND_NONSENSE), num_idle_processes=1) as pool:
        for _ in range(3):
            report = await (await pool.launch("nonsense", timeout=20)).wait()
            assert report.reason == "protocol_error"
            assert pool._shell.tools.transit.held_bytes == 0
        report = await (await pool.launch(timeout=20)).wait()
        assert len(report.result) == 60 << 20


LEAVE_WRITER = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata != "flood":
        return "fine"
    control = channel(socket.SOCK_STREAM)
    if os.fork() == 0:
        try:
            for _ in range(300):
                control.sendall(m.encode(m.Warm(0.1)) * 2000)
            note("sent", "all")
        finally:
            os._exit(0)
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_S11_a_grandchild_writes_on_where_its_session_has_died(make_app: MakeApp, start_method: str) -> None:
    """Nobody reads all that it could write: the supervisor would be busy with nothing else meanwhile."""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(LEAVE_WRITER), num_idle_processes=1, start_method=start_method) as pool,
    ):
        report = await (await pool.launch("flood", timeout=20)).wait()
        assert report.reason == "protocol_error"
        assert stage.noted("sent") == []
        assert (await (await pool.launch(timeout=20)).wait()).result == "fine"
        await assert_recovered(pool, 1)
