"""S3: the supervisor was stopped, or did not come to its event loop, for longer than every timeout.
It was not looking; that is no fault of its children."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from outside import Supervisor
from stage import Stage
from support import eventually

from greenroom.pool.shell.clock import AwakeClock

MakeApp = Callable[[str], str]

TIMEOUT = 2.5
PAUSE = 4.0  # longer than each of them

APP = """
@app.prewarm
async def prewarm(proc):
    if os.path.exists(HOLD):
        await on_stage("prewarm")

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "callback":
        ctx.add_shutdown_callback(lambda: on_stage("callback"))
    else:
        return await on_stage("job", ctx.job.id)
"""

SERVE = """
def tell(end):
    say(job=end.job_id, outcome=end.outcome, reason=end.reason, detail=end.detail, result=end.result)

names = ["prewarm", "start", "launch", "job", "stall", "shutdown", "cleanup"]
timeouts = {f"{name}_timeout": TIMEOUT for name in names}
async with ProcessPool(APP, num_idle_processes=2, max_idle_processes=2, **timeouts) as pool:
    running, ending = await pool.launch(), await pool.launch("callback")
    await eventually(lambda: pool.stats().idle == 2)
    Path(HOLD).touch()
    more = [await pool.launch(), await pool.launch()]
    waiting = pool.submit()
    say(jobs=5)
    if (await told()).strip() == "block":
        say(now="blocked")
        time.sleep(PAUSE)
    for handle in (running, ending, *more, waiting):
        tell(await handle.wait())
    await assert_recovered(pool, 2)
    say(others=[[end.reason, end.detail] for end in pool.recent_reports if end.job_id is None])
"""


@pytest.mark.parametrize("how", ["stopped", "blocked"])
async def test_S3_no_healthy_child_is_killed(make_app: MakeApp, how: str) -> None:
    async with Stage(make_app) as stage:
        hold = stage.directory / "hold"
        script = f"HOLD, TIMEOUT, PAUSE = {str(hold)!r}, {TIMEOUT}, {PAUSE}\n{SERVE}"
        async with Supervisor(stage.app(f"HOLD = {str(hold)!r}\n{APP}"), script) as supervisor:
            await supervisor.says()
            jobs = [await stage.next("job") for _ in range(3)]
            callback = await stage.next("callback")
            # Two are to be idle, and one is for the job that waits.
            prewarms = [await stage.next("prewarm") for _ in range(3)]
            if how == "stopped":
                supervisor.signal(signal.SIGSTOP)
            else:
                supervisor.tell("block")
                await supervisor.says()
            begin = time.monotonic()
            callback.order("leave")  # its time is measured in its own process, which runs
            await callback.left()
            await eventually(lambda: time.monotonic() - begin > PAUSE, "the length of the fault itself")
            hold.unlink()
            if how == "stopped":
                supervisor.signal(signal.SIGCONT)
                supervisor.tell("go on")
            else:
                # So that what is due is looked at before anything has moved.
                await eventually(lambda: time.monotonic() - begin > PAUSE + 0.3)
            for visit in [*prewarms, *jobs]:
                visit.order("done")
            (await stage.next("job")).order("done")  # the one that had waited for a process
            ends = [await supervisor.says() for _ in range(5)]
            assert all(end["outcome"] == "succeeded" for end in ends), ends
            assert [end["result"] for end in ends] == ["done", None, "done", "done", "done"]
            assert (await supervisor.says())["others"] == []
            assert await supervisor.ends() == 0
            assert set(stage.starts().values()) == {1}


async def test_S3_a_drain_waits_for_as_long_as_the_supervisor_was_awake(make_app: MakeApp) -> None:
    script = """
    async with ProcessPool(APP, num_idle_processes=1) as pool:
        job = await pool.launch()
        draining = asyncio.create_task(pool.drain(TIMEOUT))
        say(jobs=1)
        end = await job.wait()
        await draining
        say(outcome=end.outcome, reason=end.reason)
    """
    async with Stage(make_app) as stage:
        app = stage.app(f"HOLD = '/nowhere'\n{APP}")
        async with Supervisor(app, script.replace("TIMEOUT", str(TIMEOUT))) as supervisor:
            await supervisor.says()
            job = await stage.next("job")
            supervisor.signal(signal.SIGSTOP)
            begin = time.monotonic()
            await eventually(lambda: time.monotonic() - begin > PAUSE, "the length of the fault itself")
            supervisor.signal(signal.SIGCONT)
            begin = time.monotonic()
            await eventually(lambda: time.monotonic() - begin > 0.5, "a while in which it could end the job")
            job.order("done")
            assert await supervisor.says() == {"outcome": "succeeded", "reason": "completed"}
            assert await supervisor.ends() == 0


def test_S3_no_deadline_counts_a_jump_of_the_clock() -> None:
    now, rung = 1000.0, list[str]()
    clock = AwakeClock(lambda: now)
    clock.call_later(0.3, rung.append, "bell")
    now += 86400.0
    clock.advance()
    assert rung == []
    assert clock.paused == 86400.0
    now += 0.3
    clock.advance()
    assert rung == ["bell"]
