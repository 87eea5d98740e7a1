"""A server says that a job is to end: whether that ended it, or it was about to end anyway."""

from __future__ import annotations

import signal

import pytest
from dispatcher import Line, a_job
from livekit.protocol import agent
from source_scene import ACTOR, MakeApp, Scene, scene
from support import eventually
from test_source_restarts import AGENT, CALLER, ON_CRASH, FakeRooms

from greenroom.integrations.livekit.job_source.registrations import time_for_session_end

ENDED = "the LiveKit server ended the job"

PLAIN = """
app.manifest["livekit"] = {"agent_name": "actor", "worker_type": "room", "permissions": {}}

@app.entrypoint
async def entrypoint(ctx):
    ctx.shutdown("said goodbye")
    return await on_stage("ending")
"""

AGENTS = """
from livekit.agents import AgentServer

async def on_session_end(ctx):
    if ctx.job.metadata != "stays":
        await on_stage("ending")

app = AgentServer()

@app.rtc_session(on_session_end=on_session_end)
async def entrypoint(ctx):
    ctx._on_connect()  # as ctx.connect() does
    if ctx.job.metadata == "leaves":
        ctx.shutdown("said goodbye")
    elif ctx.job.metadata == "raises":
        raise LookupError("no such table")
    elif ctx.job.metadata == "loses the room":
        ctx.room.emit("disconnected", 0)
    elif ctx.job.metadata == "loses the room a moment after it is to end":
        (end,) = [task for task in asyncio.all_tasks() if task.get_name() == "livekit-shutdown"]
        end.add_done_callback(lambda _: asyncio.get_running_loop().call_later(0.05, ctx.room.emit, "disconnected", 0))
        note("runs")
"""
"""Its room is never joined; but it can be told that it has left it, as by LiveKit's own library."""


LONG = """
import atexit
from livekit.agents import AgentServer

async def on_session_end(ctx):
    how = ctx.job.metadata
    await on_stage("ending")
    if how == "takes long":
        await asyncio.sleep(4.0)  # twice what it would have if it had been told to end first
    if how == "hangs":
        await asyncio.Event().wait()
    if how == "lingers":
        atexit.register(threading.Event().wait)
    note("session", "ended")

app = AgentServer()

@app.rtc_session(on_session_end=on_session_end)
async def entrypoint(ctx):
    async def callback(reason):
        note("callback", *reason.split())
    ctx.add_shutdown_callback(callback)
    ctx._on_connect()
    ctx.room.emit("disconnected", 0)
"""
"""An agent that has lost its room, and has something to do."""


async def terminated(at: Scene, line: Line, job_id: str = "AJ_1") -> None:
    await line.terminate(job_id)
    await at.worker.logs(f"{job_id}: the server requested its end")
    await at.worker.until(f"/v1/jobs/{job_id}", lambda answer: answer.body["state"] != "running")


async def test_W3_a_job_that_was_ending_is_not_cancelled(make_app: MakeApp) -> None:
    async with scene(make_app, source=PLAIN) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        visit = await at.stage.next("ending")
        await terminated(at, line)
        visit.order("and left")
        report = await at.worker.report("AJ_1")
        assert (report["outcome"], report["reason"], report["result"]) == ("succeeded", "completed", "and left")


async def test_W3_a_livekit_job_is_cancelled_only_if_it_was_not_ending(make_app: MakeApp) -> None:
    async with scene(make_app, source=AGENTS) as at:
        await at.worker.logs("INFO .*on_session_end may run for 300 s .* cut off after 10 s")
        line = await (await at.dispatcher.line()).ready()
        await check_jobs_that_were_ending(at, line)
        await check_news_of_the_room_after_the_termination(at, line)
        await line.runs(a_job("AJ_stays", metadata="stays"))
        await terminated(at, line, "AJ_stays")
        report = await at.worker.report("AJ_stays")
        assert (report["outcome"], report["reason"], report["detail"]) == ("cancelled", "cancelled", ENDED)
        await line.update("AJ_stays", agent.JS_SUCCESS)


async def check_jobs_that_were_ending(at: Scene, line: Line) -> None:
    ends = {
        "leaves": ("succeeded", "completed", {"ended_by": "said goodbye"}),
        "loses the room": ("succeeded", "completed", {"ended_by": "room disconnected"}),
        "raises": ("failed", "raised", None),
    }
    for number, (what, end) in enumerate(ends.items(), 1):
        job_id = f"AJ_{number}"
        await line.runs(a_job(job_id, metadata=what))
        visit = await at.stage.next("ending")
        await terminated(at, line, job_id)
        visit.order("leave")
        report = await at.worker.report(job_id)
        assert (report["outcome"], report["reason"], report["result"]) == end, what


async def check_news_of_the_room_after_the_termination(at: Scene, line: Line) -> None:
    await line.runs(a_job("AJ_news", metadata="loses the room a moment after it is to end"))
    await eventually(lambda: at.stage.noted("runs"), "its entrypoint")
    await terminated(at, line, "AJ_news")
    (await at.stage.next("ending")).order("leave")
    report = await at.worker.report("AJ_news")
    assert (report["outcome"], report["result"]) == ("succeeded", {"ended_by": "room disconnected"})
    await line.update("AJ_news", agent.JS_SUCCESS)


@pytest.mark.more
async def test_an_own_end_has_its_time_until_an_operator_or_a_drain_bounds_it(make_app: MakeApp) -> None:
    source = LONG.replace("AgentServer()", "AgentServer(session_end_timeout=90.0)")
    options = ("--shutdown-timeout", "2", "--cleanup-timeout", "2", "--drain-timeout", "1")
    async with scene(make_app, *options, source=source) as at:
        await at.worker.logs("WARNING .*on_session_end may run for 90 s .* cut off after 2 s")
        line = await (await at.dispatcher.line()).ready()
        await check_an_end_that_takes_long(at, line)
        await check_an_exit_that_takes_long(at, line)
        await check_an_operators_bound(at, line)
        cut_off = sum("on_session_end was cut off" in text for text in at.worker.lines)
        await begins_to_end(at, line, "AJ_drained", "hangs")
        at.worker.signal(signal.SIGTERM)
        await at.worker.logs("on_session_end was cut off", count=cut_off + 1)
        await at.worker.ends()
        assert at.stage.noted("callback") == 4 * [["room", "disconnected"]]


async def begins_to_end(at: Scene, line: Line, job_id: str, how: str) -> None:
    """Run a job that loses its room, terminate it while it ends of its own, and let it go on."""
    await line.runs(a_job(job_id, metadata=how))
    visit = await at.stage.next("ending")
    await terminated(at, line, job_id)
    visit.order("go on")


async def check_an_end_that_takes_long(at: Scene, line: Line) -> None:
    await begins_to_end(at, line, "AJ_long", "takes long")
    report = await at.worker.report("AJ_long")
    assert (report["outcome"], report["reason"]) == ("succeeded", "completed")
    assert at.stage.noted("session") == [["ended"]]
    assert at.stage.noted("callback") == [["room", "disconnected"]]


async def check_an_exit_that_takes_long(at: Scene, line: Line) -> None:
    """It is not put down to the termination."""
    await begins_to_end(at, line, "AJ_lingers", "lingers")
    report = await at.worker.report("AJ_lingers")
    assert (report["outcome"], report["reason"]) == ("succeeded", "shutdown_timeout")
    assert "clean-up did not end" in report["detail"]


async def check_an_operators_bound(at: Scene, line: Line) -> None:
    """Callbacks are called all the same."""
    await begins_to_end(at, line, "AJ_hangs", "hangs")
    assert (await at.worker.ask("DELETE", "/v1/jobs/AJ_hangs")).status == 202
    report = await at.worker.report("AJ_hangs")
    assert "on_session_end was cut off" in report["detail"]
    assert "in on_session_end" in report["stack_dump"]
    assert at.stage.noted("callback")[2:] == [["room", "disconnected"]]
    await at.worker.logs("on_session_end was cut off")


@pytest.mark.more
async def test_an_own_end_that_hangs_is_cut_off_by_session_end_timeout_and_told(make_app: MakeApp) -> None:
    source = LONG.replace("AgentServer()", "AgentServer(session_end_timeout=1.0)")
    async with scene(make_app, source=source) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", metadata="hangs"))
        (await at.stage.next("ending")).order("go on")
        report = await at.worker.report("AJ_1")
        assert (report["outcome"], report["reason"]) == ("succeeded", "completed")
        assert "on_session_end was cut off after 1.0 s" in report["detail"]
        assert "in on_session_end" in report["stack_dump"]
        assert at.stage.noted("callback") == [["room", "disconnected"]]


@pytest.mark.more
async def test_an_agent_that_never_connects_ends_when_its_entrypoint_has(make_app: MakeApp) -> None:
    source = """
from greenroom.integrations.livekit.agent import livekit_job_run
from livekit.agents import AgentServer

livekit_job_run._TIME_TO_CONNECT = 0.5
app = AgentServer()

@app.rtc_session()
async def entrypoint(ctx):
    if ctx.job.metadata == "connects":
        ctx._on_connect()
    note("returns")
"""
    async with scene(make_app, source=source) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1"))
        report = await at.worker.report("AJ_1")
        assert report["result"] == {"ended_by": "the entrypoint returned, and never connected"}
        await at.worker.logs("the job ends: its entrypoint has returned, and it has not connected within 0.5 s")
        await line.runs(a_job("AJ_2", metadata="connects"))
        await line.runs(a_job("AJ_3"))
        assert (await at.worker.report("AJ_3"))["outcome"] == "succeeded"  # by then the other would have ended, too
        assert (await at.worker.get("/v1/jobs/AJ_2")).body["state"] == "running"


def test_an_on_session_end_that_has_its_time_is_not_spoken_of() -> None:
    assert time_for_session_end({"session_end_seconds": 90.0}, 90.0) is None
    assert time_for_session_end({"session_end_seconds": 0.0}, 10.0) is None
    assert time_for_session_end({}, 10.0) is None


async def test_a_job_whose_agent_has_left_since_it_crashed_is_started_again(make_app: MakeApp) -> None:
    raises = ACTOR.replace('== "raise":', '== "raise" and not order.restarts:').replace(
        "        raise ", "        ctx.add_shutdown_callback(lambda: on_stage('ending'))\n        raise "
    )
    async with scene(make_app, *ON_CRASH, source=raises) as at:
        at.dispatcher.twirp = FakeRooms(CALLER, AGENT)
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", metadata="raise", dispatch_id="AD_1"))
        visit = await at.stage.next("ending")
        await terminated(at, line)  # as a server does when it sees an agent leave
        visit.order("leave")
        again = await at.stage.next("job")
        again.order("leave")
        assert (await at.worker.report("AJ_1"))["reason"] == "raised"
        assert (await at.worker.report("AJ_1~1"))["outcome"] == "succeeded"
