"""LiveKit's request hook, asked in the process that would take the job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from livekit_orders import notes_of, order

from greenroom import Accept, ProcessPool, Reject
from greenroom.integrations.livekit.job_order import Acceptance

MakeAgent = Callable[[str], Path]

HOOK = """
async def on_request(request: JobRequest):
    how = request.job.metadata
    assert (request.id, request.room.name, request.agent_name) == ("AJ_1", "reception", "greeter")
    if how == "default": await request.accept()
    if how == "named": await request.accept(name="Ada", identity="ada", metadata="m", attributes={"floor": "1"})
    if how == "busy": await request.reject(terminate=False)
    if how == "never": await request.reject()
    if how == "raise": raise LookupError("no such table")
    if how == "default":
        note("goes on")  # the answer is on its way by now
        raise RuntimeError("too late to matter")

server = AgentServer()

@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext):
    note("runs in", os.getpid(), ctx._info.accept_arguments.identity)
    ctx.shutdown()
"""


async def test_the_hooks_answer_is_passed_on(make_agent: MakeAgent) -> None:
    app = make_agent(HOOK)
    verdicts = {}
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        for how in ("named", "busy", "never", "raise", "silent", "default"):
            reservation = await pool.reserve(order(how), timeout=20.0, source="livekit")
            verdicts[how] = await reservation.ask()
            if how != "default":
                reservation.release("the test has seen enough")
        accepted = verdicts["default"]
        assert isinstance(accepted, Accept)
        handle = reservation.launch(order(accept=Acceptance.of(accepted.answer, "AJ_1")))
        report = await handle.wait()
        assert report.outcome == "succeeded", report.error
    assert isinstance(verdicts["named"], Accept)
    assert verdicts["named"].answer == {
        "name": "Ada", "identity": "ada", "metadata": "m", "attributes": {"floor": "1"}
    }  # fmt: skip
    assert accepted.answer == {"name": "", "identity": "agent-AJ_1", "metadata": "", "attributes": {}}
    rejected = {how: verdict for how, verdict in verdicts.items() if isinstance(verdict, Reject)}
    assert {how: verdict.final for how, verdict in rejected.items()} == {
        "busy": False, "never": True, "raise": False, "silent": False
    }  # fmt: skip
    assert "LookupError: no such table" in rejected["raise"].reason
    assert "no answer" in rejected["silent"].reason
    assert notes_of(app) == ["goes on", f"runs in {handle.pid} agent-AJ_1"]


async def test_without_a_hook_there_is_nothing_to_ask(make_agent: MakeAgent) -> None:
    app = make_agent("async def entrypoint(ctx: JobContext): ...\noptions = WorkerOptions(entrypoint_fnc=entrypoint)")
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        reservation = await pool.reserve(order(), timeout=20.0)
        verdict = await reservation.ask()
        assert isinstance(verdict, Accept)
        assert Acceptance.of(verdict.answer, "AJ_1").identity == "agent-AJ_1"
        reservation.release("over")
