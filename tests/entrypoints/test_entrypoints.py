"""LiveKit's entrypoints in Greenroom's processes: everything that an agent touches, and every way to end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from support import eventually

from greenroom import ExitReport, NoCapacity, ProcessPool
from greenroom.integrations.livekit.job_order import Acceptance
from greenroom.pool.events import ProcessEnded

MakeAgent = Callable[[str], Path]

SERVER = """
server = AgentServer(ws_url="ws://127.0.0.1:7880", api_key="key", api_secret="a secret of thirty-two characters")

def setup(proc: JobProcess):
    proc.userdata["model"] = "loaded"
    proc.userdata["runtime_before"] = rtc._ffi_client.FfiClient._instance is not None

server.setup_fnc = setup
"""


async def run(app: Path, metadata: str = "", **values: object) -> ExitReport:
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        return await (await pool.launch(order(metadata, **values))).wait()


async def test_an_entrypoint_finds_all_that_it_may_touch(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = make_agent(
        SERVER
        + """
def on_simulation_end(simulation): pass

@server.rtc_session(agent_name="greeter", on_simulation_end=on_simulation_end)
async def entrypoint(ctx: JobContext):
    assert get_job_context() is ctx
    assert ctx.proc.userdata == {"model": "loaded", "runtime_before": False}
    assert rtc._ffi_client.FfiClient._instance is not None  # started while the process was warmed up
    assert (ctx.proc.pid, ctx.proc.user_arguments) == (os.getpid(), None)
    assert (ctx.job.id, ctx.job.room.name, ctx.job.metadata) == ("AJ_1", "reception", "of the dispatch")
    assert ctx.job.attributes["greenroom.restarts"] == "2"
    assert ctx.worker_id == "AW_1"
    assert ctx.token_claims().identity == "agent-1"
    assert ctx.local_participant_identity == "agent-1"
    assert ctx._info.accept_arguments.attributes == {"floor": "1"}
    assert ctx._simulation_end_fnc is on_simulation_end
    assert http_context.http_session() is http_context.http_session()
    assert ctx.api.room is not None  # it takes the server's address and keys from the environment
    assert Path(ctx.session_directory).is_dir()
    ctx.log_context_fields = {"caller": "Ada"}
    async def greet(ctx, participant): note("greets", participant.identity)
    ctx.add_participant_entrypoint(greet)
    await ctx.connect()
    assert ctx.room.isconnected()
    assert ctx.agent is ctx.room.local_participant
    await asyncio.sleep(0)
    logging.getLogger("agent").info("hello", extra={"count": 1, "caller": "not Ada", "what": ctx.job.room})
    logging.getLogger("agent").info("again")
    ctx.shutdown("said goodbye")
"""
    )
    from livekit import api

    token = api.AccessToken("key", "a secret of thirty-two characters").with_identity("agent-1").to_jwt()
    accept = Acceptance(identity="agent-1", attributes={"floor": "1"})
    report = await run(app, "of the dispatch", token=token, worker_id="AW_1", accept=accept, restarts=2)
    assert (report.outcome, report.reason) == ("succeeded", "completed"), report.error
    assert report.result == {"ended_by": "said goodbye"}
    assert notes_of(app) == ["greets mock_user"]
    first, second = (record for record in caplog.records if getattr(record, "app_logger", "") == "agent")
    assert vars(first)["fields"].items() >= {"count": 1, "caller": "not Ada"}.items()
    assert 'name: "reception"' in vars(first)["fields"]["what"]
    assert vars(second)["fields"]["caller"] == "Ada"
    assert report.descendants_killed == 0


ENDINGS = (
    SERVER
    + """
async def on_session_end(ctx: JobContext):
    note("session end", ctx.job.metadata)

@server.rtc_session(on_session_end=on_session_end)
async def entrypoint(ctx: JobContext):
    async def with_reason(reason): note("callback", reason)
    async def without(): note("callback")
    ctx.add_shutdown_callback(with_reason)
    ctx.add_shutdown_callback(without)
    await ctx.connect()
    how = ctx.job.metadata
    if how == "raise": raise LookupError("no such table")
    if how == "exit": sys.exit(3)
    if how == "_exit": os._exit(4)
    if how == "crash": ctypes.string_at(0)
    if how == "cancelled": raise asyncio.CancelledError
    note("waits")
    if how == "ignore": await asyncio.sleep(1000)
"""
)


async def test_each_way_to_end_is_reported_as_what_it_was(make_agent: MakeAgent) -> None:
    app = make_agent(ENDINGS)
    async with ProcessPool(str(app), num_idle_processes=1, shutdown_timeout=4.0) as pool:
        await check_own_ends(app, pool)
        await check_ordered_ends(app, pool)


ENDS_ITSELF = ("raise", "exit", "_exit", "crash", "cancelled")


async def check_own_ends(app: Path, pool: ProcessPool) -> None:
    endings = {how: await (await pool.launch(order(how))).wait() for how in ENDS_ITSELF}
    told = {how: (report.outcome, report.reason, report.exit_code, report.signal) for how, report in endings.items()}
    assert told == {
        "raise": ("failed", "raised", 1, None),
        "exit": ("failed", "exited", 3, None),
        "_exit": ("failed", "exited", 4, None),
        "crash": ("killed", "signaled", None, signal.SIGSEGV),
        "cancelled": ("failed", "raised", 1, None),
    }
    error = endings["raise"].error
    assert error is not None
    assert (error.type, error.message) == ("LookupError", "no such table")
    assert "in entrypoint" in error.traceback
    # LiveKit's own sequence ran where there was a process left to run it.
    crashed, callbacks = "callback job crashed", "callback"
    assert notes_of(app) == [
        *("session end raise", crashed, callbacks),
        *("session end exit", crashed, callbacks),
        *("session end cancelled", crashed, callbacks),
    ]


async def check_ordered_ends(app: Path, pool: ProcessPool) -> None:
    """A shutdown of ours becomes LiveKit's own."""
    for how in ("wait", "ignore"):
        handle = await pool.launch(order(how))
        await eventually(lambda: notes_of(app)[-1:] == ["waits"])
        handle.cancel("the caller has gone")
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("cancelled", "cancelled")
        # One whose entrypoint does not end is cut off in time for all that comes after it.
        assert notes_of(app)[-3:] == [f"session end {how}", "callback the caller has gone", "callback"]


@pytest.mark.more
async def test_what_hangs_at_the_end_has_shutdown_timeout(make_agent: MakeAgent) -> None:
    app = make_agent(
        SERVER
        + """
@server.rtc_session()
async def entrypoint(ctx: JobContext):
    async def saves_for_ever(reason): await asyncio.sleep(1000)
    ctx.add_shutdown_callback(saves_for_ever)
    await ctx.connect()
    ctx.shutdown("over")
"""
    )
    async with ProcessPool(str(app), num_idle_processes=1, shutdown_timeout=0.5) as pool:
        report = await (await pool.launch(order())).wait()
    assert report.reason == "shutdown_timeout"
    assert report.result == {"ended_by": "over"}  # the job itself had ended


async def test_setup_runs_as_it_does_under_livekit(make_agent: MakeAgent) -> None:
    app = make_agent(
        """
async def load(): return "weights"

def prewarm(proc: JobProcess):
    proc.userdata["by_run"] = asyncio.run(load())  # there is no loop yet, under LiveKit
    proc.userdata["by_loop"] = asyncio.new_event_loop().run_until_complete(load())

async def entrypoint(ctx: JobContext):
    note(sorted(ctx.proc.userdata.items()))
    ctx.shutdown()

options = WorkerOptions(entrypoint_fnc=entrypoint, prewarm_fnc=prewarm)
"""
    )
    report = await run(app)
    assert report.outcome == "succeeded", report.error
    assert notes_of(app) == ["[('by_loop', 'weights'), ('by_run', 'weights')]"]


@pytest.mark.more
async def test_a_setup_that_raises_is_told(make_agent: MakeAgent) -> None:
    app = make_agent(
        """
def setup(proc: JobProcess): raise FileNotFoundError("no weights")

server = AgentServer(setup_fnc=setup)

@server.rtc_session()
async def entrypoint(ctx: JobContext): ...
"""
    )
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        reports = []
        pool.subscribe(lambda event: reports.append(event.report) if isinstance(event, ProcessEnded) else None)
        with pytest.raises(NoCapacity):
            await pool.launch(order(), timeout=1.0)
        await eventually(lambda: reports, "the report of a process that failed to warm")
        assert reports[0].reason == "prewarm_failed"
        assert "no weights" in reports[0].detail


async def test_a_job_that_cannot_be_set_up_is_told_so(make_agent: MakeAgent) -> None:
    app = make_agent(
        """
import tempfile

def setup(proc: JobProcess): tempfile.tempdir = "/proc/no/such/place"  # where each job's own folder is to be

server = AgentServer(setup_fnc=setup)

@server.rtc_session()
async def entrypoint(ctx: JobContext): ...
"""
    )
    report = await run(app)
    assert report.reason == "raised"
    assert "/proc/no/such/place" in str(report.error)


async def test_a_session_is_closed_and_reported_before_the_callbacks(make_agent: MakeAgent) -> None:
    """And a job that is none of LiveKit's is told so."""
    app = make_agent(
        """
from livekit.agents import Agent, AgentSession

server = AgentServer()

async def on_session_end(ctx: JobContext):
    report = ctx.make_session_report()
    note("report", report.job_id, report.room, ctx.primary_session is session)

@server.rtc_session(on_session_end=on_session_end)
async def entrypoint(ctx: JobContext):
    global session
    session = AgentSession()
    session.on("close", lambda event: note("closed"))
    async def callback(reason): note("callback", reason)
    ctx.add_shutdown_callback(callback)
    await session.start(Agent(instructions="greet"))
    ctx.shutdown("over")
"""
    )
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        report = await (await pool.launch(order())).wait()
        alien = await (await pool.launch({"caller": "+1555"})).wait()
    assert alien.reason == "raised"
    assert "not the description of a LiveKit job" in str(alien.error)
    assert report.outcome == "succeeded", report.error
    assert notes_of(app) == ["closed", "report AJ_1 reception True", "callback over"]
