"""S6: a reload that fails changes nothing; one that succeeds changes everything but the jobs that run."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest
from stage import Stage, Visit, assert_recovered, starting
from support import eventually, idle_pids, is_gone, kill, zygote_pid

from greenroom import AppLoadError, NoCapacity, PoolClosed, PrewarmError, ProcessPool
from greenroom.pool.events import ReloadFailed
from greenroom.system import proc

MakeApp = Callable[[str], str]

OLD = """
VERSION = "old"

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "stay":
        await on_stage("job", ctx.job.id)
    return VERSION
"""


def rewrite(app: str, old: str, new: str) -> None:
    """Change the app's source; also in size, by which Python knows that what it has compiled is stale."""
    path = Path(app.rpartition(":")[0])
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new) + "\n" * 7)


async def test_S6_without_idle_processes_new_code_is_proven_by_one(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=0) as pool:
            broken = "@app.prewarm\nasync def prewarm(proc):\n    raise ValueError('no database')\n\n@app.entrypoint"
            rewrite(app, "@app.entrypoint", broken)
            with pytest.raises(PrewarmError, match="no database"):
                await pool.reload()
            assert await version_served(pool) == "old"
            rewrite(app, broken, '@app.prewarm\nasync def prewarm(proc):\n    note("warmed")\n\n@app.entrypoint')
            rewrite(app, '"old"', '"new"')
            await pool.reload()
            assert len(stage.noted("warmed")) == 1
            assert await version_served(pool) == "new"


async def version_served(pool: ProcessPool) -> object:
    return (await (await pool.launch()).wait()).result


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("VERSION =", "VERSION = = (", AppLoadError, "SyntaxError"),
        ("@app.entrypoint", "", AppLoadError, "no entrypoint"),
        ("app = greenroom.App()", "ap = greenroom.App()", AppLoadError, "name 'app' is not defined"),
        ("VERSION =", "import no_such_module\nVERSION =", AppLoadError, "no_such_module"),
        ("@app.entrypoint", "os._exit(3)\n@app.entrypoint", AppLoadError, "exit code 3"),
        (
            "@app.entrypoint",
            "@app.prewarm\nasync def prewarm(proc):\n    raise ValueError('no database')\n\n@app.entrypoint",
            PrewarmError,
            "no database",
        ),
        ("@app.entrypoint", "@app.prewarm\ndef prewarm(proc):\n    os._exit(3)\n\n@app.entrypoint", PrewarmError, "3"),
        (
            "@app.entrypoint",
            "@app.prewarm\nasync def prewarm(proc):\n    time.sleep(1000)\n\n@app.entrypoint",
            PrewarmError,
            "prewarm_timeout",
        ),
    ],
)
async def test_S6_new_code_that_does_not_load_or_warm(
    make_app: MakeApp, old: str, new: str, error: type[Exception], message: str
) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=2, prewarm_timeout=4.0) as pool:
            job = await pool.launch("stay")
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().idle == 2)
            before, zygote, generation = idle_pids(pool), zygote_pid(pool), pool.stats().generation
            source = Path(app.rpartition(":")[0]).read_text()
            rewrite(app, old, new)
            with pytest.raises(error, match=message):
                await pool.reload()
            assert (zygote_pid(pool), pool.stats().generation) == (zygote, generation)
            assert idle_pids(pool) == before
            assert pool.stats().ready
            assert await version_served(pool) == "old"
            # What it forks from now on is the old code, too.
            await eventually(lambda: pool.stats().idle == 2)
            assert [await version_served(pool) for _ in range(3)] == ["old"] * 3
            await eventually(lambda: not pool.stats().breaker_open)

            Path(app.rpartition(":")[0]).write_text(source)
            rewrite(app, '"old"', '"repaired"')
            await pool.reload()
            assert await version_served(pool) == "repaired"
            visit.order("leave")
            assert (await job.wait()).result == "old"
            await assert_recovered(pool, 2)


async def test_S6_live_jobs_end_on_the_old_code(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=2) as pool:
            jobs = [await pool.launch("stay") for _ in range(3)]
            visits = [await stage.next("job") for _ in jobs]
            await eventually(lambda: pool.stats().idle == 2)
            zygote, old_idle = zygote_pid(pool), idle_pids(pool)
            rewrite(app, '"old"', '"renewed"')
            await pool.reload()
            assert await asyncio.gather(*(version_served(pool) for _ in range(4))) == ["renewed"] * 4
            await eventually(lambda: all(map(is_gone, old_idle)), "end of the old idle processes")
            assert not is_gone(zygote)  # it is needed still, to reap the jobs that run
            for visit in visits[:-1]:
                visit.order("leave")
            for job in jobs[:-1]:
                assert (await job.wait()).result == "old"
            assert not is_gone(zygote)
            visits[-1].order("leave")
            assert (await jobs[-1].wait()).result == "old"
            await eventually(lambda: is_gone(zygote), "end of the old zygote")
            assert zygote_pid(pool) != zygote
            await assert_recovered(pool, 2)
            assert pool.stats().zygote_restarts == 0
            assert set(stage.starts().values()) == {1}


async def test_S6_several_generations_at_a_time(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=1) as pool:
            jobs, visits, zygotes, version = [], [], [], "old"
            for _ in range(4):
                jobs.append(await pool.launch("stay"))
                visits.append(await stage.next("job"))
                zygotes.append(zygote_pid(pool))
                rewrite(app, f'"{version}"', f'"{version}er"')
                version += "er"
                await pool.reload()
            for visit in visits:
                visit.order("leave")
            assert [(await job.wait()).result for job in jobs] == ["old", "older", "olderer", "oldererer"]
            await eventually(lambda: all(map(is_gone, zygotes)), "end of the old zygotes")
            await assert_recovered(pool, 1)


async def test_S6_a_reload_that_repairs_what_was_broken(make_app: MakeApp) -> None:
    """What still fails of the old code while the new is tried says nothing about the new."""
    prewarm = """
@app.prewarm
async def prewarm(proc):
    order = await on_stage("prewarm")
    if order == "fail":
        raise ValueError("no database")
"""
    async with Stage(make_app) as stage:
        app = stage.app(prewarm + OLD)
        pool = ProcessPool(app, num_idle_processes=1)
        starting = asyncio.create_task(pool.start())
        (await stage.next("prewarm")).order("fail")
        await starting
        try:
            assert not pool.stats().ready
            broken = await stage.next("prewarm")
            rewrite(app, "order = await on_stage", "order = await  on_stage")
            reloading = asyncio.create_task(pool.reload())
            repaired = await stage.next("prewarm")
            broken.order("fail")
            await eventually(lambda: sum(r.reason == "prewarm_failed" for r in pool.recent_reports) == 2)
            assert not reloading.done()
            repaired.order("serve")
            await reloading
            await assert_recovered(pool, 1)
        finally:
            await pool.aclose()


async def test_S6_what_a_lost_zygote_has_left_is_reloaded_too(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=3) as pool:
            orphans = idle_pids(pool)
            job = await pool.launch("stay")
            visit = await stage.next("job")
            kill(lost := zygote_pid(pool))
            await eventually(lambda: pool.stats().zygote_pid not in (None, lost), "replacement of the zygote")
            rewrite(app, '"old"', '"renewed"')
            await pool.reload()
            served = await asyncio.gather(*(version_served(pool) for _ in range(8)))
            assert served == ["renewed"] * 8
            orphans.remove(visit.pid)
            await eventually(lambda: all(map(is_gone, orphans)), "end of the old idle processes")
            visit.order("leave")
            assert (await job.wait()).result == "old"
            await assert_recovered(pool, 3)


async def test_S6_no_session_is_turned_down_meanwhile(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=2) as pool:
            rewrite(app, '"old"', '"renewed"')
            reloading = asyncio.create_task(pool.reload())
            served = []
            while not reloading.done():
                try:
                    served.append(await version_served(pool))
                except NoCapacity as error:
                    pytest.fail(f"a session was turned down: {error}")
            await reloading
            assert served.count("old") > 0
            assert served == sorted(served)  # old, then renewed: never back
            await assert_recovered(pool, 2)
            assert os.path.exists(f"/proc/{zygote_pid(pool)}")


HELD = """@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")

@app.entrypoint"""


@pytest.mark.parametrize("concurrent", [1, 4])
async def test_S6_old_code_is_forked_from_while_new_code_does_not_become_warm(
    make_app: MakeApp, concurrent: int
) -> None:
    options = {"num_idle_processes": 1, "max_idle_processes": 1, "prewarm_timeout": 50}
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, **options, max_concurrent_prewarms=concurrent) as pool:
            rewrite(app, "@app.entrypoint", HELD)
            rewrite(app, '"old"', '"new"')
            reload = asyncio.create_task(pool.reload())
            visit = await stage.next("prewarm")  # the new code is loaded, and stays there
            for _ in range(4):  # more than were idle
                assert await version_served(pool) == "old"
            visit.order("go on")
            await reload
            launch = asyncio.create_task(version_served(pool))
            assert await launch == "new"
            while pool.stats().idle < 1:
                (await stage.next("prewarm")).order("go on")
                await eventually(lambda: pool.stats().idle == 1)


async def test_S6_all_idle_processes_are_of_the_new_code_when_a_reload_returns(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=3, max_idle_processes=3, idle_ttl=0.2) as pool:
            before = set(idle_pids(pool))
            rewrite(app, '"old"', '"new"')
            await pool.reload()
            assert len(idle_pids(pool)) >= 3
            assert before.isdisjoint(idle_pids(pool))
            await assert_recovered(pool, 3)


async def all_but_one_on_trial(stage: Stage, pool: ProcessPool, count: int) -> Visit:
    """Let ``count - 1`` processes of new code become idle; the last one is held in its prewarm."""
    visits = [await stage.next("prewarm") for _ in range(count)]
    for visit in visits[:-1]:
        visit.order("go on")
    on_trial = {visit.pid for visit in visits[:-1]}
    await eventually(lambda: on_trial <= set(idle_pids(pool)), "idle processes on trial")
    return visits[-1]


async def test_S6_what_is_on_trial_neither_counts_as_idle_nor_is_shed(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        options = {"num_idle_processes": 3, "max_idle_processes": 3, "idle_ttl": 0.01, "prewarm_timeout": 50}
        async with ProcessPool(app, **options) as pool:
            before = set(idle_pids(pool))
            rewrite(app, "@app.entrypoint", HELD)
            reload = asyncio.create_task(pool.reload())
            last = await all_but_one_on_trial(stage, pool, 3)
            assert pool.stats().idle == 3
            pool.resize(2, max_idle_processes=2)  # the surplus goes at once, and is one
            await eventually(lambda: len(before & set(idle_pids(pool))) == 2)
            assert len(idle_pids(pool)) == 4
            assert not [report for report in pool.recent_reports if report.generation == 2]
            last.order("go on")
            await reload
            assert before.isdisjoint(idle_pids(pool))
            assert pool.stats().idle == 3


async def test_S6_a_pool_with_nothing_idle_but_on_trial_is_not_ready(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(f"@app.prewarm\nasync def prewarm(proc):\n    pass\n{OLD}")
        async with ProcessPool(app, num_idle_processes=2, max_idle_processes=2, prewarm_timeout=50) as pool:
            rewrite(app, "    pass", '    await on_stage("prewarm")')
            reload = asyncio.create_task(pool.reload())
            last = await all_but_one_on_trial(stage, pool, 2)
            zygote = zygote_pid(pool)
            kill(zygote)  # no more of the old code, for as long as the reload takes
            await eventually(lambda: pool.stats().zygote_pid is None)
            for _ in range(2):
                await pool.launch("stay")
            assert (pool.stats().ready, pool.stats().idle) == (False, 0)
            waiting = pool.submit()
            assert pool.stats().waiting == 1  # for proven code
            last.order("go on")
            await reload
            report = await waiting.wait()
            assert (report.outcome, report.generation) == ("succeeded", 2)


async def test_S6_a_drain_gives_a_reload_up(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=2, max_idle_processes=2, prewarm_timeout=50) as pool:
            job = await pool.launch("stay")
            visit = await stage.next("job")
            rewrite(app, "@app.entrypoint", HELD)
            reload = asyncio.create_task(pool.reload())
            await all_but_one_on_trial(stage, pool, 2)
            draining = asyncio.create_task(pool.drain(3600))
            with pytest.raises(PoolClosed, match="draining"):
                await reload
            await eventually(lambda: [process.job_id for process in pool.processes] == [job.id])
            visit.order("leave")
            assert (await job.wait()).result == "old"
            await draining
            with pytest.raises(PoolClosed, match="draining"):
                await pool.reload()


async def test_S6_code_that_has_loaded_only_when_the_pool_drains_does_not_serve(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(OLD)
        async with ProcessPool(app, num_idle_processes=1) as pool:
            held = '@app.preload\ndef preload():\n    block_on_stage("preload")\n\n'
            rewrite(app, "@app.entrypoint", f"{held}@app.entrypoint")
            reload = asyncio.create_task(pool.reload())
            visit = await stage.next("preload")
            await pool.drain(3600)
            visit.order("go on")
            with pytest.raises(PoolClosed, match="draining"):
                await reload
            assert pool.stats().generation == 1


SAYS_WHEN_WARM = """
from greenroom.zygote.child_main import ChildMain

say = ChildMain._send

def say_and_signal(self, message):
    say(self, message)
    if type(message).__name__ == "Warm":
        fd = os.open(WARM, os.O_WRONLY)
        os.write(fd, b"!")
        os.close(fd)

ChildMain._send = say_and_signal
"""


async def test_S6_new_code_whose_zygote_is_lost_in_the_turn_of_its_proof_serves_from_another_one(
    make_app: MakeApp, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "warm")
    warm = os.open(tmp_path / "warm", os.O_RDWR)
    async with Stage(make_app) as stage:
        app = stage.app(f"WARM = {str(tmp_path / 'warm')!r}\n" + SAYS_WHEN_WARM + OLD)
        async with ProcessPool(app, num_idle_processes=1, max_idle_processes=1) as pool:
            old = zygote_pid(pool)
            os.read(warm, 1)
            held = "@app.prewarm\nasync def prewarm(proc):\n    await on_stage('warming')\n\n@app.entrypoint"
            rewrite(app, "@app.entrypoint", held)
            reloading = asyncio.create_task(pool.reload())
            visit = await stage.next("warming")
            new = proc.stat(visit.pid).ppid
            pidfd = os.pidfd_open(new)
            await visit.ordered("go on")
            # Both in one turn of this event loop: that the process is warm, and that its zygote is dead.
            os.read(warm, 1)
            kill(new)
            select.select([pidfd], [], [])
            os.close(pidfd)
            # It is proven, and then its zygote is lost like any other: it is replaced inside its generation.
            await reloading
            await eventually(lambda: pool.stats().zygote_pid not in (None, old, new), "another zygote")
            report = await (await pool.launch()).wait()
            assert (report.outcome, report.generation) == ("succeeded", 2)
            (await stage.next("warming")).order("go on")  # of the process that takes the served one's place
            assert pool.stats().generation == 2
            await assert_recovered(pool, 1)
    os.close(warm)


async def test_S6_code_that_changed_while_it_was_loaded_is_proven_when_the_zygote_is_lost(make_app: MakeApp) -> None:
    """A deployment in a long preload: the file is new, and what was imported of it is old."""
    preload = """
@app.preload
def preload():
    block_on_stage("preload")
"""
    broken = """
@app.prewarm
def prewarm(proc):
    raise ValueError("new code is broken")
"""
    async with Stage(make_app) as stage:
        app = stage.app(OLD + preload)
        pool = ProcessPool(app, num_idle_processes=1)
        failures: list[ReloadFailed] = []
        pool.subscribe(lambda event: failures.append(event) if isinstance(event, ReloadFailed) else None)
        async with starting(pool) as start:
            visit = await stage.next("preload")
            rewrite(app, "@app.preload", broken + "@app.preload")
            visit.order("go on")
            await start
            kill(zygote_pid(pool))
            (await stage.next("preload")).order("go on")
            await eventually(lambda: failures, "the failure of the proof")
            assert "new code is broken" in failures[0].cause
            assert await version_served(pool) == "old"
