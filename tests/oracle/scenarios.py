"""Scenarios, one function each. They use what is public alone, and run on any pool that behaves the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from faults.forged import FIND_CHANNEL
from faults.stage import Visit, starting
from oracle.apps import ASKED, BLOCKED, ENDINGS, PLAIN, WARMING, prewarm_that
from oracle.recording import normalised
from oracle.setting import Setting, scenario
from support import eventually, idle_pids, kill, zygote_pid

from greenroom import Accept, Job, ProcessPool, Reject, Reservation

SURPLUS = {"idle_ttl": 0.2}


def rewrite(app: str, old: str, new: str) -> None:
    """Change the app's source; also in size, by which Python knows that what it has compiled is stale."""
    path = Path(app.rpartition(":")[0])
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new) + "\n" * 7)


async def zygote_replaced(pool: ProcessPool, lost: int) -> None:
    await eventually(lambda: pool.stats().zygote_pid not in (lost, None), "replacement of the zygote")


# --- launching -----------------------------------------------------------------------------------


@scenario()
async def warm_launch(s: Setting) -> None:
    """A job is launched while processes are idle."""
    async with s.pool(s.app(PLAIN), num_idle_processes=2) as pool:
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 2)


@scenario()
async def cold_launch(s: Setting) -> None:
    """A job is launched while nothing is idle: it waits for a process."""
    async with s.pool(s.app(PLAIN), num_idle_processes=0) as pool:
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 0)


@scenario()
async def id_in_use(s: Setting) -> None:
    """A job is launched under the id of one that lives."""
    async with s.pool(s.app(PLAIN)) as pool:
        visit = await s.stay(pool, "a")
        await s.told("launch a again", s.launch(pool, "a"))
        await s.told("reserve a again", pool.reserve(Job("a"), timeout=50))
        visit.order("fine")
        await s.at_rest(pool, 1)


@scenario()
async def burst(s: Setting) -> None:
    """Five jobs come at once on two idle processes."""
    async with s.pool(s.app(PLAIN), num_idle_processes=2) as pool:
        handles = [pool.submit(Job(name, "stay")) for name in "abcde"]
        for handle in handles:
            await handle.started()
        for handle in handles:
            (await s.visit("job", handle.id)).order("fine")
            await handle.wait()
        await s.at_rest(pool, 2)


@scenario()
async def turned_down_full(s: Setting) -> None:
    """All jobs are taken; what is reserved counts as well."""
    async with s.pool(s.app(PLAIN), max_jobs=2) as pool:
        visit = await s.stay(pool, "a")
        await eventually(lambda: pool.stats().idle == 1)
        await s.told("reserve b", pool.reserve(Job("b")))
        await s.told("launch c", s.launch(pool, "c"))
        await s.told("reserve d", pool.reserve(Job("d")))
        visit.order("fine")
        await eventually(lambda: not pool.has_job("a") and pool.stats().idle == 1)


@scenario()
async def turned_down_warming(s: Setting) -> None:
    """No process is there in time: an offer that may not wait, one and a job that wait in vain."""
    async with s.pool(s.app(WARMING), num_idle_processes=0, **SURPLUS) as pool:
        await s.told("reserve a", pool.reserve(Job("a")))
        await s.told("launch b", pool.launch(Job("b"), timeout=0.3))
        await s.told("reserve c", pool.reserve(Job("c"), timeout=2.5))
        for _ in range(len(pool.processes)):
            (await s.stage.next("prewarm")).order("go on")
        await s.at_rest(pool, 0)


@scenario()
async def turned_down_draining(s: Setting) -> None:
    """The pool drains."""
    async with s.pool(s.app(PLAIN)) as pool:
        visit = await s.stay(pool, "a")
        await eventually(lambda: pool.stats().idle == 1)
        draining = asyncio.create_task(pool.drain(50))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        await s.told("launch b", s.launch(pool, "b"))
        await s.told("reserve c", pool.reserve(Job("c")))
        visit.order("fine")
        await draining


@scenario()
async def turned_down_breaker(s: Setting) -> None:
    """No process becomes warm; then they do again."""
    always = prewarm_that("raise ValueError('no model')").replace("if first()", "if os.path.exists(FLAG)")
    s.raise_flag()
    async with s.pool(s.app(always)) as pool:
        await eventually(lambda: pool.stats().breaker_open)
        await s.told("launch a", s.launch(pool, "a"))
        s.flag.unlink()
        await eventually(lambda: not pool.stats().breaker_open)
        await (await s.launch(pool, "b")).wait()
        await s.at_rest(pool, 1)


# --- endings -------------------------------------------------------------------------------------


@scenario()
async def endings(s: Setting) -> None:
    """Jobs end in each way of their own, one after the other in one pool."""
    hows = ["complete", "raise", "exit", "exit at once", "killed", "crash", "unsendable", "shut down"]
    async with s.pool(s.app(FIND_CHANNEL + ENDINGS)) as pool:
        for how in [*hows, "leave children", "break the protocol"]:
            await (await s.launch(pool, how, how)).wait()
            await s.at_rest(pool, 1)


@scenario()
async def killed_from_outside(s: Setting) -> None:
    """Somebody kills a job by SIGKILL, one by SIGTERM, and one that ends already."""
    async with s.pool(s.app(ENDINGS)) as pool:
        for name, signum in [("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)]:
            kill((await s.stay(pool, name)).pid, signum)
            await s.at_rest(pool, 1)
        await s.launch(pool, "ending", "hold the callbacks")
        kill((await s.visit("callback", "ending")).pid)
        await s.at_rest(pool, 1)


@scenario()
async def job_timeout(s: Setting) -> None:
    """A job runs for longer than it may; another one ignores that it is told."""
    async with s.pool(s.app(ENDINGS), job_timeout=0.5, shutdown_timeout=1.0) as pool:
        for how in ("stay", "ignore"):
            await (await s.launch(pool, how, how)).wait()
            await s.at_rest(pool, 1)


@scenario()
async def shutdown_timeout(s: Setting) -> None:
    """The callbacks of a job that has completed take longer than they may."""
    async with s.pool(s.app(ENDINGS), shutdown_timeout=0.5) as pool:
        await (await s.launch(pool, "a", "hold the callbacks")).wait()
        await s.at_rest(pool, 1)


@scenario()
async def stall(s: Setting) -> None:
    """A job blocks its event loop."""
    async with s.pool(s.app(ENDINGS), stall_timeout=0.5) as pool:
        await (await s.launch(pool, "a", "block")).wait()
        await s.at_rest(pool, 1)


@scenario()
async def memory_limit(s: Setting) -> None:
    """A job takes more memory than it may."""
    app = """
@app.entrypoint
async def entrypoint(ctx):
    held = []
    while True:
        held.append(b"x" * (4 << 20))
        await asyncio.sleep(0.02)
"""
    async with s.pool(s.app(app), memory_limit_mb=120) as pool:
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 1)


# --- cancelling ----------------------------------------------------------------------------------


@scenario()
async def cancelled_waiting(s: Setting) -> None:
    """A job is cancelled while it waits for a process, which becomes idle all the same."""
    async with s.pool(s.app(WARMING), num_idle_processes=0) as pool:
        handle = pool.submit(Job("a"))
        visit = await s.stage.next("prewarm")
        handle.cancel("the caller hung up")
        handle.cancel("and again")
        await s.told("started a", handle.started())
        await handle.wait()
        visit.order("go on")
        await eventually(lambda: pool.stats().idle == 1)


async def blocked(s: Setting, pool: ProcessPool) -> Visit:
    """Have the one idle process block."""
    (await s.stage.next("idle")).order("block")
    return await s.stage.next("blocked")


@scenario()
async def cancelled_starting(s: Setting) -> None:
    """A job is cancelled while its process has not acknowledged it."""
    s.raise_flag()
    async with s.pool(s.app(BLOCKED)) as pool:
        await blocked(s, pool)
        handle = pool.submit(Job("a"))
        assert handle.state == "starting"
        handle.cancel("the caller hung up")
        await s.told("started a", handle.started())
        await handle.wait()
        await s.at_rest(pool, 1)


@scenario()
async def cancelled_running(s: Setting) -> None:
    """Jobs are cancelled while they run: one that is cut off, one that waits for that, one that ends already."""
    async with s.pool(s.app(ENDINGS)) as pool:
        for how in ("stay", "wait"):
            handle = await s.launch(pool, how, how)
            (await s.visit("job", how)).order("go on") if how == "wait" else await s.visit("job", how)
            handle.cancel("the caller hung up")
            await handle.wait()
            await s.at_rest(pool, 1)
        handle = await s.launch(pool, "ending", "hold the callbacks")
        visit = await s.visit("callback", "ending")
        await eventually(lambda: handle.state == "draining")
        handle.cancel("too late")
        visit.order("go on")
        await s.at_rest(pool, 1)


@scenario()
async def cancelled_ignoring(s: Setting) -> None:
    """A job ignores that it is cancelled, and is killed."""
    async with s.pool(s.app(ENDINGS), shutdown_timeout=0.5) as pool:
        handle = await s.launch(pool, "a", "ignore")
        await s.visit("job", "a")
        handle.cancel("the caller hung up")
        await handle.wait()
        await s.at_rest(pool, 1)


# --- losses before the job -----------------------------------------------------------------------


@scenario()
async def claimed_killed(s: Setting) -> None:
    """A process dies with a job that it has not acknowledged: the job goes to another one."""
    s.raise_flag()
    async with s.pool(s.app(BLOCKED)) as pool:
        visit = await blocked(s, pool)
        handle = pool.submit(Job("a"))
        kill(visit.pid)
        await handle.wait()
        await s.at_rest(pool, 1)


@scenario()
async def claims_exhausted(s: Setting) -> None:
    """Three processes die with a job that none of them has acknowledged: the job is given up."""
    app = s.app(BLOCKED.replace("ALL_BLOCK = False", "ALL_BLOCK = True"))
    async with s.pool(app, num_idle_processes=3) as pool:
        for _ in range(3):
            await blocked(s, pool)
        handle = pool.submit(Job("a"))
        killed: list[int | None] = []
        for _ in range(3):
            await eventually(lambda: handle.pid not in (None, *killed))
            assert handle.pid is not None
            killed.append(handle.pid)
            kill(handle.pid)
        await s.told("started a", handle.started())
        await handle.wait()
        await s.at_rest(pool, 3)


@scenario()
async def start_timeout(s: Setting) -> None:
    """A process does not acknowledge a job in time: the job goes to another one."""
    s.raise_flag()
    async with s.pool(s.app(BLOCKED), start_timeout=1.0) as pool:
        await blocked(s, pool)
        await pool.submit(Job("a")).wait()
        await s.at_rest(pool, 1)


@scenario()
async def start_fails(s: Setting) -> None:
    """The app cannot be imported: the pool does not start."""
    pool = s.pool(s.app("raise ImportError('no such library')\n" + PLAIN))
    await s.told("start", pool.start())
    await s.told("launch a", s.launch(pool, "a"))


@scenario()
async def prewarm_raises(s: Setting) -> None:
    """The prewarm of one process raises."""
    s.raise_flag()
    async with s.pool(s.app(prewarm_that("raise ValueError('no model')"))) as pool:
        await s.at_rest(pool, 1)


@scenario()
async def prewarm_crashes(s: Setting) -> None:
    """One process crashes in its prewarm."""
    s.raise_flag()
    app = s.app(prewarm_that("os.kill(os.getpid(), signal.SIGSEGV)"))
    async with s.pool(app) as pool:
        await s.at_rest(pool, 1)


@scenario()
async def prewarm_timeout(s: Setting) -> None:
    """The prewarm of one process takes too long."""
    s.raise_flag()
    async with s.pool(s.app(prewarm_that("time.sleep(3600)")), prewarm_timeout=1.5) as pool:
        await s.at_rest(pool, 1)


@scenario()
async def idle_killed(s: Setting) -> None:
    """Somebody kills an idle process."""
    async with s.pool(s.app(PLAIN), num_idle_processes=2) as pool:
        pid = idle_pids(pool)[0]
        kill(pid)
        await eventually(lambda: pid not in {process.pid for process in pool.processes})
        await s.at_rest(pool, 2)
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 2)


@scenario()
async def idle_stopped(s: Setting) -> None:
    """The one idle process is stopped, and then a job comes: it goes to another one."""
    async with s.pool(s.app(PLAIN)) as pool:
        kill(pid := idle_pids(pool)[0], signal.SIGSTOP)
        while " T " not in Path(f"/proc/{pid}/stat").read_text():
            os.sched_yield()  # in one turn of the event loop, in which the pool does not hear of it
        await pool.submit(Job("a")).wait()
        await s.at_rest(pool, 1)


# --- reservations --------------------------------------------------------------------------------


@scenario()
async def reserved_launched(s: Setting) -> None:
    """A process is kept for an offer, and its job is launched; also one that the offer waits for."""
    async with s.pool(s.app(PLAIN)) as pool:
        first, second = await pool.reserve(Job("a")), await pool.reserve(Job("b"), timeout=50)
        for reservation in (first, second):
            await reservation.launch().wait()
        await s.at_rest(pool, 1)


@scenario()
async def reserved_released(s: Setting) -> None:
    """An offer comes to nothing. Its process is idle again, and serves the next job."""
    async with s.pool(s.app(PLAIN)) as pool:
        reservation = await pool.reserve(Job("a"))
        await eventually(lambda: pool.stats().idle == 1)  # its place is filled meanwhile
        reservation.release("it went to another worker")
        reservation.release("again")
        await s.told("launch a", _launch(reservation))
        await eventually(lambda: pool.stats().idle == 2)


async def _launch(reservation: Reservation) -> None:
    reservation.launch()


@scenario()
async def reservation_withdrawn(s: Setting) -> None:
    """The caller of an offer goes while it waits for a process."""
    async with s.pool(s.app(WARMING), num_idle_processes=0) as pool:
        reserving = asyncio.create_task(pool.reserve(Job("a"), timeout=50))
        visit = await s.stage.next("prewarm")
        reserving.cancel()
        await eventually(reserving.done)
        visit.order("go on")
        await eventually(lambda: pool.stats().idle == 1)


@scenario()
async def reservation_expired(s: Setting) -> None:
    """An offer is not ordered in time."""
    async with s.pool(s.app(PLAIN), reservation_timeout=0.3) as pool:
        reservation = await pool.reserve(Job("a"))
        await eventually(lambda: not pool.has_job("a"))
        await s.told("launch a", _launch(reservation))
        await eventually(lambda: pool.stats().idle == 2)  # its place was filled meanwhile


@scenario()
async def reserved_killed(s: Setting) -> None:
    """A reserved process dies: another one takes its place, and gets the job."""
    async with s.pool(s.app(PLAIN)) as pool:
        reservation = await pool.reserve(Job("a"))
        await eventually(lambda: pool.stats().idle == 1)
        kill(first := reservation.pid or 0)
        await eventually(lambda: reservation.pid not in (None, first))
        await reservation.launch().wait()
        await s.at_rest(pool, 1)


async def _ask(reservation: Reservation) -> str:
    answer = await reservation.ask()
    match answer:
        case Accept():
            return f"accepted: {answer.answer}"
        case Reject():
            return f"rejected, final {answer.final}: {normalised(answer.reason)}"


@scenario(lives=False)
async def hook(s: Setting) -> None:
    """The app's request hook accepts, rejects, raises, is too slow, and crashes. Where it runs is not compared."""
    async with s.pool(s.app(ASKED), request_timeout=1.0, **SURPLUS) as pool:
        for how in ("accept", "reject", "raise", "slow", "crash", "accept again"):
            reservation = await pool.reserve(Job(how, how), timeout=50)
            await s.told(f"hook {how}", _ask(reservation))
            if reservation.state == "reserved":
                await reservation.launch("done").wait()
            await s.at_rest(pool, 1)


# --- zygote and code -----------------------------------------------------------------------------


@scenario()
async def zygote_killed(s: Setting) -> None:
    """The zygote is lost while jobs run; they go on, and another one is loaded."""
    async with s.pool(s.app(ENDINGS), **SURPLUS) as pool:
        visits = {}
        for name in "abc":
            visits[name] = await s.stay(pool, name)
            await eventually(lambda: pool.stats().idle == 1)
        kill(lost := zygote_pid(pool))
        await zygote_replaced(pool, lost)
        visits["a"].order("fine")
        kill(visits["b"].pid)
        kill(visits["c"].pid, signal.SIGTERM)
        await s.at_rest(pool, 1)
        await (await s.launch(pool, "d", "complete")).wait()
        await s.at_rest(pool, 1)


@scenario()
async def zygote_killed_while_a_job_waits(s: Setting) -> None:
    """The zygote is lost while a job waits for a process that becomes warm: it gets that one."""
    async with s.pool(s.app(WARMING), num_idle_processes=0) as pool:
        handle = pool.submit(Job("a", "stay"))
        prewarm = await s.stage.next("prewarm")
        await eventually(lambda: [process.state for process in pool.processes] == ["warming"])
        kill(lost := zygote_pid(pool))
        await eventually(lambda: pool.stats().zygote_pid != lost)
        prewarm.order("go on")
        await handle.started()
        await zygote_replaced(pool, lost)
        (await s.visit("job", "a")).order("fine")
        await handle.wait()


@scenario(generations=True)
async def reload_with_reservations(s: Setting) -> None:
    """New code serves while processes of the old are reserved: one gets its job, one is released and ends."""
    app = s.app(PLAIN)
    async with s.pool(app, num_idle_processes=2) as pool:
        used, unused = await pool.reserve(Job("a")), await pool.reserve(Job("b"))
        await eventually(lambda: pool.stats().idle == 2)
        rewrite(app, '"old"', '"new"')
        await s.told("reload", pool.reload())
        await used.launch().wait()
        unused.release()
        await s.at_rest(pool, 2)


@scenario(generations=True)
async def reload_ok(s: Setting) -> None:
    """New code is loaded, proven, and serves; a job that runs ends on the old code."""
    app = s.app(PLAIN)
    async with s.pool(app, num_idle_processes=2) as pool:
        visit = await s.stay(pool, "a")
        await eventually(lambda: pool.stats().idle == 2)
        rewrite(app, '"old"', '"new"')
        await s.told("reload", pool.reload())
        await (await s.launch(pool, "b")).wait()
        visit.order("old")
        await s.at_rest(pool, 2)


@scenario(generations=True)
async def reload_prewarm_fails(s: Setting) -> None:
    """New code loads, and its prewarm raises: the old goes on serving."""
    app = s.app(PLAIN)
    async with s.pool(app) as pool:
        rewrite(
            app, "@app.entrypoint", "@app.prewarm\ndef prewarm(proc):\n    raise ValueError('no')\n\n@app.entrypoint"
        )
        await s.told("reload", pool.reload())
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 1)


@scenario(generations=True)
async def reload_does_not_load(s: Setting) -> None:
    """New code cannot be imported: the old goes on serving."""
    app = s.app(PLAIN)
    async with s.pool(app) as pool:
        rewrite(app, "VERSION =", "raise ImportError('no such library')\nVERSION =")
        await s.told("reload", pool.reload())
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 1)


@scenario()
async def resize(s: Setting) -> None:
    """The pool is made larger, then smaller."""
    async with s.pool(s.app(PLAIN)) as pool:
        pool.resize(3, max_idle_processes=3)
        await s.at_rest(pool, 3)
        pool.resize(1, max_idle_processes=1)
        await s.at_rest(pool, 1)


@scenario()
async def spawn(s: Setting) -> None:
    """Processes are spawned, not forked: jobs complete, raise, and are cancelled."""
    async with s.pool(s.app(PLAIN), start_method="spawn") as pool:
        for name in ("complete", "raise"):
            await (await s.launch(pool, name, name)).wait()
            await s.at_rest(pool, 1)
        handle = await s.launch(pool, "cancel", "stay")
        await s.visit("job", "cancel")
        handle.cancel("the caller hung up")
        await s.at_rest(pool, 1)


@scenario(generations=True)
async def spawn_reload(s: Setting) -> None:
    """New code is proven and serves where processes are spawned."""
    app = s.app(PLAIN)
    async with s.pool(app, start_method="spawn") as pool:
        rewrite(app, '"old"', '"new"')
        await s.told("reload", pool.reload())
        await (await s.launch(pool, "a")).wait()
        await s.at_rest(pool, 1)


# --- drain and close -----------------------------------------------------------------------------


@scenario()
async def drain_with_job(s: Setting) -> None:
    """A drain waits for a job that runs, and for one that is reserved."""
    async with s.pool(s.app(PLAIN)) as pool:
        visit = await s.stay(pool, "a")
        await eventually(lambda: pool.stats().idle == 1)
        reservation = await pool.reserve(Job("b"))
        await eventually(lambda: pool.stats().idle == 1)
        draining = asyncio.create_task(pool.drain(50))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        await reservation.launch().wait()
        visit.order("fine")
        await s.told("drain", draining)


@scenario()
async def drain_with_waiting(s: Setting) -> None:
    """A drain waits for a job that still waits for its process."""
    async with s.pool(s.app(WARMING), num_idle_processes=0) as pool:
        handle = pool.submit(Job("a"))
        visit = await s.stage.next("prewarm")
        draining = asyncio.create_task(pool.drain(50))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        visit.order("go on")
        await handle.wait()
        await s.told("drain", draining)


@scenario()
async def drain_with_prewarm(s: Setting) -> None:
    """A drain finds a process that becomes warm, and that no job waits for."""
    pool = s.pool(s.app(WARMING))
    async with starting(pool):
        await s.stage.next("prewarm")
        await eventually(lambda: [process.state for process in pool.processes] == ["warming"])
        await s.told("drain", pool.drain(50))


@scenario(generations=True)
async def drain_gives_up_a_reload(s: Setting) -> None:
    """A drain begins while new code is on trial: the reload is over."""
    on_trial = '@app.prewarm\nasync def prewarm(proc):\n    await on_stage("trial")\n\n'
    app = s.app(PLAIN)
    async with s.pool(app) as pool:
        visit = await s.stay(pool, "a")
        await eventually(lambda: pool.stats().idle == 1)
        rewrite(app, "@app.entrypoint", f"{on_trial}@app.entrypoint")
        reload = asyncio.create_task(pool.reload())
        await s.stage.next("trial")
        await eventually(lambda: [process.state for process in pool.processes] == ["running", "idle", "warming"])
        draining = asyncio.create_task(pool.drain(50))
        await s.told("reload", reload)
        await eventually(lambda: len(pool.processes) == 1)
        visit.order("fine")
        await s.told("drain", draining)


@scenario()
async def drain_overdue(s: Setting) -> None:
    """Jobs do not end in the time of a drain: one that runs, one that ignores its end, one that is reserved."""
    async with s.pool(s.app(ENDINGS), num_idle_processes=3, shutdown_timeout=1.0) as pool:
        for how in ("stay", "ignore"):
            await s.launch(pool, how, how)
            await s.visit("job", how)
        await pool.reserve(Job("reserved"))
        await eventually(lambda: pool.stats().idle == 3)
        await s.told("drain", pool.drain(0.3))


@scenario()
async def close_with_jobs(s: Setting) -> None:
    """The pool is closed with jobs that run, that are reserved, and that wait."""
    s.raise_flag()
    only_first_warm = PLAIN + '\n@app.prewarm\nasync def prewarm(proc):\n    first() or await on_stage("prewarm")\n'
    async with s.pool(s.app(only_first_warm)) as pool:
        visit = await s.stay(pool, "a")
        waiting = pool.submit(Job("b"))
        reserving = asyncio.create_task(pool.reserve(Job("c"), timeout=50))
        for _ in range(3):
            await s.stage.next("prewarm")
        states = ["running", "warming", "warming", "warming"]
        await eventually(lambda: [process.state for process in pool.processes] == states)
        await pool.aclose()
        await s.told("started b", waiting.started())
        await s.told("reserve c", reserving)
        await s.told("launch d", s.launch(pool, "d"))
        await visit.left()


@scenario()
async def close_kill(s: Setting) -> None:
    """The pool is closed at once, with jobs that run and ignore their end."""
    async with s.pool(s.app(ENDINGS)) as pool:
        for how in ("stay", "ignore"):
            await s.launch(pool, how, how)
            await s.visit("job", how)
            await eventually(lambda: pool.stats().idle == 1)
        await pool.aclose(kill=True)
