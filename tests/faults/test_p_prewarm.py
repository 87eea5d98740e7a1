"""P2, P6: processes that do not become warm, once or always."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable

import pytest
from stage import PLAIN, Stage, Visit, assert_recovered, starting, steady
from support import eventually, idle_pids, kill

from greenroom import ExitReport, NoCapacity, ProcessPool
from greenroom.pool.events import Event, PrewarmsBounded, ProcessChanged

MakeApp = Callable[[str], str]

ORDERED = (
    PLAIN
    + """
@app.prewarm
async def prewarm(proc):
    order = await on_stage("prewarm")
    if order == "raise":
        raise RuntimeError("no model")
    if order == "exit":
        os._exit(5)
    if order == "leave":
        sys.exit(6)
    if order == "hang":
        await asyncio.Event().wait()
    if order == "block":
        ctypes.PyDLL(None).pause()  # in C, and with the GIL
"""
)


def break_prewarm(how: str, visit: Visit) -> None:
    if how == "killed":
        kill(visit.pid, signal.SIGKILL)
    else:
        visit.order(how)


def end_of(pool: ProcessPool, pid: int) -> ExitReport:
    (report,) = [report for report in pool.recent_reports if report.pid == pid]
    return report


@pytest.mark.parametrize(
    ("how", "outcome", "reason", "exit_code", "signum"),
    [
        ("raise", "failed", "prewarm_failed", 1, None),
        ("exit", "failed", "exited", 5, None),
        ("leave", "failed", "exited", 6, None),
        ("hang", "killed", "prewarm_timeout", None, signal.SIGKILL),
        ("block", "killed", "prewarm_timeout", None, signal.SIGKILL),
        ("killed", "killed", "signaled", None, signal.SIGKILL),
    ],
)
async def test_P2_a_failed_prewarm_gives_its_slot_back_exactly_once(
    make_app: MakeApp, how: str, outcome: str, reason: str, exit_code: int | None, signum: int | None
) -> None:
    options = {**steady(4), "max_concurrent_prewarms": 2}
    options["prewarm_timeout"] = 3.0 if how in ("hang", "block") else 50.0
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(ORDERED), **options)
        async with starting(pool):
            first = await stage.next("prewarm")
            break_prewarm(how, first)
            if how in ("hang", "block"):
                for _ in range(3):  # one after the other, in the second slot
                    (await stage.next("prewarm")).order("go on")
                await first.left()
                (await stage.next("prewarm")).order("go on")
            else:
                second, third = await stage.next("prewarm"), await stage.next("prewarm")
                # Two slots, two processes: the slot is not lost, and was not given back twice.
                assert pool.stats().warming == 2
                assert stage.is_empty("prewarm")
                second.order("go on")
                third.order("go on")
                for _ in range(2):
                    (await stage.next("prewarm")).order("go on")
            await assert_recovered(pool, 4)
            assert stage.is_empty("prewarm")
            end = end_of(pool, first.pid)
            assert (end.outcome, end.reason) == (outcome, reason)
            assert (end.exit_code, end.signal) == (exit_code, signum)
            assert len(list(pool.recent_reports)) == 1
            if how == "raise":
                assert end.error is not None
                assert (end.error.type, end.error.message) == ("RuntimeError", "no model")
            if how == "hang":
                assert end.stack_dump is not None
            handle = await pool.launch()
            assert (await handle.wait()).outcome == "succeeded"
            assert stage.starts() == {handle.id: 1}
            (await stage.next("prewarm")).order("go on")
            await assert_recovered(pool, 4)


async def test_P2_a_job_that_waits_gets_the_replacement(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(ORDERED), **steady(0)) as pool:
        handle = pool.submit(timeout=50)
        (await stage.next("prewarm")).order("raise")
        (await stage.next("prewarm")).order("exit")
        killed = await stage.next("prewarm")
        kill(killed.pid)
        (await stage.next("prewarm")).order("go on")
        assert (await handle.wait()).reason == "completed"
        assert handle.launch_type == "cold"
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 0)
        causes = [report.reason for report in pool.recent_reports if report.job_id is None]
        assert causes == ["prewarm_failed", "exited", "signaled"]


BROKEN_WHILE_FLAGGED = (
    PLAIN
    + """
@app.prewarm
def prewarm(proc):
    note("prewarm")
    if os.path.exists(FLAG):
        raise ConnectionError("the database is down")
"""
)


@pytest.mark.parametrize("concurrent", [1, 4])
async def test_P6_prewarm_that_always_fails_is_tried_ever_more_rarely_until_it_recovers(
    make_app: MakeApp, concurrent: int
) -> None:
    async with Stage(make_app) as stage:
        flag = stage.directory / "flag"
        flag.touch()
        app = stage.app(f"FLAG = {str(flag)!r}\n{BROKEN_WHILE_FLAGGED}")
        # It starts, though nothing becomes warm: stats() tell why.
        pool = ProcessPool(app, **steady(3), max_concurrent_prewarms=concurrent)
        requests: list[float] = []
        pool.subscribe(lambda event: requests.append(event.at) if is_request(event) else None)
        async with pool:
            assert not pool.stats().ready
            waiting = pool.submit(timeout=50)  # accepted, since the breaker is not open yet
            await eventually(lambda: pool.stats().breaker_open, "an open breaker")
            stats = pool.stats()
            assert (stats.ready, stats.not_ready_reason) == (False, "breaker_open")
            assert stats.breaker_cause is not None
            assert "ConnectionError: the database is down" in stats.breaker_cause
            with pytest.raises(NoCapacity, match="the database is down") as refusal:
                await pool.launch()
            assert refusal.value.reason == "breaker_open"
            assert refusal.value.retry_after > 0
            assert waiting.state == "waiting"
            tries = len(stage.noted("prewarm"))
            assert tries <= 6 + concurrent
            if concurrent == 1:  # else tries that were in progress together blur the times
                await eventually(lambda: len(stage.noted("prewarm")) > tries, "one more try")
                # Not from when to when they run, which is up to the machine.
                assert_backoff([after - before for before, after in itertools.pairwise(requests)][3:])

            flag.unlink()
            await waiting.started()
            assert (await waiting.wait()).reason == "completed"
            await assert_recovered(pool, 3)
            await eventually(lambda: pool.stats().breaker_cause is None, "a breaker that has forgotten")
            assert not pool.stats().breaker_open
            assert stage.starts() == {waiting.id: 1}
            failures = [report for report in pool.recent_reports if report.job_id is None]
            assert {report.reason for report in failures} == {"prewarm_failed"}


def assert_backoff(pauses: list[float]) -> None:
    """One at a time, and each pause twice as long as the one before: that bounds the spawns per minute."""
    assert len(pauses) >= 3
    for number, pause in enumerate(pauses):
        assert pause >= 0.2 * 2**number


def is_request(event: Event) -> bool:
    return isinstance(event, ProcessChanged) and event.after == "requested"


FAILS_AND_STAYS = (
    PLAIN
    + """
import atexit

@app.prewarm
def prewarm(proc):
    note("prewarm")
    atexit.register(block_on_stage, "exit")
    raise ConnectionError("the database is down")
"""
)


async def test_P6_a_failure_counts_at_once_though_the_process_takes_its_time_to_exit(make_app: MakeApp) -> None:
    """Else each request for a session would fork one more, for as long as none of them is gone."""
    async with Stage(make_app) as stage:
        options = {"num_idle_processes": 1, "max_concurrent_prewarms": 1, "cleanup_timeout": 50}
        pool = ProcessPool(stage.app(FAILS_AND_STAYS), **options)
        async with starting(pool):
            lingering = [await stage.next("exit") for _ in range(1)]
            while not pool.stats().breaker_open:
                pool.submit(timeout=50)
                lingering.append(await stage.next("exit"))
            with pytest.raises(NoCapacity) as refusal:
                pool.submit(timeout=50)
            assert refusal.value.reason == "breaker_open"
            assert len(stage.noted("prewarm")) == len(lingering) == 6
            for visit in lingering:
                visit.order("go on")


DIES_ONCE_IDLE = (
    PLAIN
    + """
@app.prewarm
async def prewarm(proc):
    note("prewarm")
    if os.path.exists(FLAG):
        asyncio.get_running_loop().call_later(0.01, os._exit, 3)
"""
)


async def test_P6_processes_that_die_as_soon_as_they_are_idle_are_no_spawn_storm(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        flag = stage.directory / "flag"
        flag.touch()
        app = stage.app(f"FLAG = {str(flag)!r}\n{DIES_ONCE_IDLE}")
        async with ProcessPool(app, **steady(2)) as pool:
            # What is idle for its last moment still counts as ready.
            await eventually(lambda: pool.stats().not_ready_reason == "breaker_open", "an open breaker")
            # How it died is known when its parent has told.
            await eventually(lambda: "it exited with code 3" in str(pool.stats().breaker_cause), "the cause")
            assert len(stage.noted("prewarm")) <= 10
            flag.unlink()
            await assert_recovered(pool, 2)
            handle = await pool.launch()
            assert (await handle.wait()).reason == "completed"


async def test_P6_new_code_is_the_cure(make_app: MakeApp) -> None:
    """A reload must not be held up, or refused, for what was wrong with the old code."""
    async with Stage(make_app) as stage:
        broken = PLAIN + "\n@app.prewarm\ndef prewarm(proc):\n    note('broken')\n    raise ValueError('old code')\n"
        reference = stage.app(broken)
        async with ProcessPool(reference, **steady(2)) as pool:
            await eventually(lambda: pool.stats().breaker_open, "an open breaker")
            path = reference.removesuffix(":app")
            with open(path) as file:
                source = file.read()
            replacement = f"{path}.new"
            with open(replacement, "w") as file:
                file.write(source.replace("raise ValueError", "str"))
            os.replace(replacement, path)
            await pool.reload()
            assert pool.stats().generation == 2
            assert pool.stats().breaker_cause is None
            await assert_recovered(pool, 2)
            handle = await pool.launch()
            assert (await handle.wait()).reason == "completed"


async def test_P6_new_code_is_not_blamed_for_what_the_old_code_still_does(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(ORDERED), **steady(1))
        async with starting(pool):
            old = await stage.next("prewarm")
            reload = asyncio.create_task(pool.reload())
            new = await stage.next("prewarm")  # while the old one may hang for long yet
            old.order("raise")
            await eventually(lambda: len(list(pool.recent_reports)) == 1)
            new.order("go on")
            await reload
            assert end_of(pool, old.pid).reason == "prewarm_failed"
            assert idle_pids(pool) == [new.pid]
            await assert_recovered(pool, 1)


CROWDED = (
    PLAIN
    + """
@app.prewarm
async def prewarm(proc):
    if await on_stage("prewarm") == "hang":
        await asyncio.Event().wait()
"""
)


async def test_P2_fewer_become_warm_at_once_when_a_crowd_has_missed_its_time(make_app: MakeApp) -> None:
    """The cause is counted, not the CPU: those who come together as four never end; those who come as two do."""
    async with Stage(make_app) as stage:
        told: list[PrewarmsBounded] = []
        pool = ProcessPool(stage.app(CROWDED), **steady(4), max_concurrent_prewarms=4, prewarm_timeout=3)
        pool.subscribe(lambda event: told.append(event) if isinstance(event, PrewarmsBounded) else None)
        async with starting(pool):
            crowd = [await stage.next("prewarm") for _ in range(4)]
            for visit in crowd:
                visit.order("hang")
            await eventually(lambda: len(list(pool.recent_reports)) == 4)
            (await stage.next("prewarm")).order("go on")  # alone: the breaker tries with one
            first, second = await stage.next("prewarm"), await stage.next("prewarm")
            # A success has closed the breaker, and still two do not become three.
            assert pool.stats().warming == 2
            assert stage.is_empty("prewarm")
            first.order("go on")
            second.order("go on")
            (await stage.next("prewarm")).order("go on")
            await assert_recovered(pool, 4)
            assert [(event.allowed, event.most) for event in told] == [(2, 4), (3, 4)]
            assert [report.reason for report in pool.recent_reports] == ["prewarm_timeout"] * 4
