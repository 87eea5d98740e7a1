"""A worker that stood still: what has waited meanwhile is rejected, and does not run. What comes later is served."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from faults.stage import PLAIN, Stage
from hypothesis import given
from hypothesis import strategies as st
from raw_http import Connection, RawAnswer, connect, post, request
from running_worker import RunningWorker
from support import Kept, eventually, listening

from greenroom.server.stall_guard import GRACE, LONGEST, TURNS, StallGuard, Stalls
from greenroom.server.web.arrivals import Arrivals
from greenroom.system import proc

MakeApp = Callable[[str], str]

LONG, SHORT = 1.0, 0.2
"""Seconds of a fault itself: above and below the bound."""
BODY = json.dumps({"metadata": None, "timeout": 60}).encode()
START = post(len(BODY)) + BODY
LARGE = json.dumps({"metadata": "x" * 500_000}).encode()
"""More than the buffers of a socket hold."""


# --- the policy ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 3 * LONGEST), max_size=50))
def test_a_gap_is_a_stall_exactly_if_it_is_too_long(gaps: list[float]) -> None:
    now, stalls, expected = 0.0, Stalls(0.0), 0
    for gap in gaps:
        before, now = now, now + gap
        is_stall = now - before > LONGEST
        expected += is_stall
        assert stalls.see(now) == (now - before if is_stall else None)
        assert stalls.count == expected
        assert stalls.over == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2 * LONGEST)), max_size=100))
def test_a_stall_is_over_after_some_turns_and_some_time(steps: list[tuple[bool, float]]) -> None:
    now = woken = 0.0
    stalls, turns = Stalls(0.0), 0
    for is_turn, gap in steps:
        now += gap
        if stalls.see(now) is not None:
            woken, turns = now, 0
            assert stalls.over < stalls.count
        if is_turn:
            turns += 1
            wait = stalls.turn(now)
            is_over = turns >= TURNS and woken + GRACE - now <= 0
            assert (wait is None) == is_over
            assert is_over or stalls.over <= stalls.count
            assert not is_over or stalls.over == stalls.count
            assert wait is None or 0 <= wait <= GRACE


# --- the mechanism -------------------------------------------------------------------------------


async def test_a_sleep_of_the_machine_is_a_stall_though_timers_do_not_count_it() -> None:
    offset = 0.0
    guard = StallGuard(lambda: time.monotonic() + offset)
    assert (guard.count, guard.over) == (0, 0)
    offset = 1000.0
    assert guard.count == 0, "it was not started"
    with listening(Kept(), "greenroom") as kept:
        guard.start()
        offset = 5000.0
        assert guard.over < guard.count
        await eventually(lambda: guard.over == guard.count)
        lengths = [record["details"]["seconds"] for record in kept.of_event("worker_stalled")]
    assert [4000 <= length < 4001 for length in lengths].count(True) == 1, lengths
    guard.stop()
    offset = 9000.0
    assert guard.over == guard.count, "it was stopped"


async def test_what_waits_in_sockets_is_read_before_a_stall_is_over() -> None:
    """Two hundred connections, of which asyncio reads some before its timers, and whatever comes after them."""
    loop, guard = asyncio.get_running_loop(), StallGuard()
    pairs = [socket.socketpair() for _ in range(200)]
    arrivals = [Arrivals(guard) for _ in pairs]
    stale = list[bool]()

    def read(number: int) -> None:
        pairs[number][0].recv(100)
        arrivals[number].came()
        stale.append(arrivals[number]._before < guard.count)
        arrivals[number].answered(may_have_more=False)

    for number, (ours, _) in enumerate(pairs):
        loop.add_reader(ours, read, number)
    guard.start()
    for _, theirs in pairs:
        theirs.send(b"waits")
    time.sleep(LONG)  # the fault: the event loop stands still
    await eventually(lambda: len(stale) == len(pairs))
    assert all(stale)
    while True:
        await eventually(lambda: guard.over == guard.count)
        stalls = guard.count
        stale.clear()
        for _, theirs in pairs:
            theirs.send(b"comes")
        await eventually(lambda: len(stale) == len(pairs))
        if guard.count == stalls:  # else the machine has held this process up
            break
    assert not any(stale)
    guard.stop()
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()


def test_bytes_behind_a_request_came_with_it() -> None:
    now = 0.0
    guard = StallGuard(lambda: now)
    arrivals = Arrivals(guard)
    arrivals.came()
    arrivals.answered(may_have_more=True)
    guard._stalls.over = 1
    arrivals.came()
    assert arrivals._before == 0
    arrivals.answered(may_have_more=False)
    arrivals.came()
    assert arrivals._before == 1


# --- a real worker -------------------------------------------------------------------------------


@asynccontextmanager
async def stopped(worker: RunningWorker, seconds: float) -> AsyncIterator[None]:
    """Stop a worker, and let it go on when the block has run and the time is over."""
    worker.signal(signal.SIGSTOP)
    await eventually(lambda: proc.stat(worker.pid).state == "T", "the stop of the worker")
    begin = time.monotonic()
    yield
    await eventually(lambda: time.monotonic() - begin > seconds, "the length of the fault itself")
    worker.signal(signal.SIGCONT)


def is_stalled(answer: RawAnswer) -> bool:
    if answer.status != 503 or answer.error["reason"] != "stalled":
        return False
    assert answer.error["type"] == "no_capacity"
    assert answer.headers["retry-after"] == "1"
    return True


async def started(connection: Connection) -> None:
    """Send a request that must be served sooner or later, as a client does that is told to try again."""
    for _ in range(50):
        connection.send(START)
        answer = await connection.answer()
        if not is_stalled(answer):
            break
        await asyncio.sleep(GRACE)
    assert answer.status == 201, answer


async def test_what_waits_while_a_worker_is_stopped_is_refused_and_does_not_run(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "2", "--rate-limit", "off")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()

        async def connected() -> Connection:
            return await stack.enter_async_context(await connect(port))

        kept, half, halved, large = [await connected() for _ in range(4)]
        kept.send(request("GET", "/livez"))
        assert (await kept.answer()).status == 200
        half.send(post(len(BODY)))
        halved.send(post(len(BODY)) + BODY[:5])
        await worker.get("/livez")  # it has read what was sent before
        async with stopped(worker, LONG):
            kept.send(START)
            half.send(BODY)
            large.send(post(len(LARGE)) + LARGE)
            new = [await connected() for _ in range(100)]  # more than are accepted in one turn
            for connection in new:
                connection.send(START)
        halved.send(BODY[5:])  # whoever sent the first part may have been told no by a proxy
        answers = [await connection.answer() for connection in (kept, half, halved, large, *new)]
        assert [is_stalled(answer) for answer in answers] == [True] * 104
        seconds = float((await worker.logs(r"the worker stood still for ([\d.]+) s\. Jobs that have waited"))[1])
        assert seconds >= LONG
        text = (await worker.fetch("GET", "/metrics")).text
        assert 'greenroom_turned_down_total{reason="stalled",source="http"} 104.0' in text
        assert not stage.starts()
        await asyncio.sleep(GRACE)
        for connection in (kept, half, halved, large, new[0], await connected()):
            await started(connection)
        await eventually(lambda: sum(stage.starts().values()) == 6)


@pytest.mark.more
async def test_a_short_stop_refuses_nothing(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "2", "--rate-limit", "off")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker:
        port = await worker.port()
        for stalls in range(1, 20):
            async with AsyncExitStack() as stack:
                async with stopped(worker, SHORT):
                    connections = [await stack.enter_async_context(await connect(port)) for _ in range(10)]
                    for connection in connections:
                        connection.send(START)
                answers = [await connection.answer() for connection in connections]
            if not any(map(is_stalled, answers)):
                break
            # A busy machine has made it longer: then, and only then, it is a stall.
            seconds = await worker.logs(r"the worker stood still for ([\d.]+) s", count=stalls)
            assert float(seconds[1]) >= LONGEST
        assert [answer.status for answer in answers] == [201] * 10


@pytest.mark.more
async def test_a_job_that_waits_for_a_process_when_the_worker_is_stopped_does_not_run(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        hold = stage.directory / "hold"
        hold.touch()
        source = f"""
@app.prewarm
async def prewarm(proc):
    if os.path.exists({str(hold)!r}):
        await on_stage("prewarm")

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
"""
        options = ("--num-idle-processes", "0")
        async with RunningWorker(stage.app(source), *options) as worker, await connect(await worker.port()) as client:
            client.send(START)
            visit = await stage.next("prewarm")
            async with stopped(worker, LONG):
                hold.unlink()
            visit.order("go on")
            assert is_stalled(await client.answer())
            await started(client)
            await eventually(lambda: sum(stage.starts().values()) == 1)


@pytest.mark.more
async def test_nothing_but_starts_is_refused(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        await stage.next("job")
        port = await worker.port()
        async with await connect(port) as shows, await connect(port) as cancels, await connect(port) as probes:
            async with stopped(worker, LONG):
                shows.send(request("GET", f"/v1/jobs/{job['id']}"))
                probes.send(request("GET", "/livez"))
                cancels.send(request("DELETE", f"/v1/jobs/{job['id']}"))
            assert (await shows.answer()).status == 200
            assert (await probes.answer()).status == 200
            assert (await cancels.answer()).status == 202
        report = await worker.report(job["id"])
        assert report["reason"] == "cancelled"


@pytest.mark.more
async def test_a_client_that_hangs_up_on_a_stopped_worker_leaves_no_job(make_app: MakeApp) -> None:
    # Nobody can say who a client was that is gone. With a token it would be turned down for that.
    options = ("--num-idle-processes", "2", "--token", "off")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker:
        port = await worker.port()
        async with stopped(worker, LONG):
            for _ in range(5):
                async with await connect(port) as client:
                    client.send(START)
        await worker.logs(r"was turned down \(stalled\)")
        await worker.report((await worker.start())["id"])
        assert sum(stage.starts().values()) == 1


@pytest.mark.more
async def test_a_worker_that_is_stopped_while_it_loads_says_that_it_loads(make_app: MakeApp) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    source = f"{PLAIN}\n@app.preload\ndef preload():\n    block_on_stage('preload')\n"
    options = ("--port", str(port), "--num-idle-processes", "1")
    async with Stage(make_app) as stage, RunningWorker(stage.app(source), *options) as worker:
        loading = await stage.next("preload")
        async with await connect(port) as client:
            async with stopped(worker, LONG):
                client.send(START)
            answer = await client.answer()
            assert (answer.status, answer.error["reason"]) == (503, "warming")
            assert not [line for line in worker.lines if "the worker stood still" in line]
            loading.order("go on")
            await worker.url()
            await started(client)
