"""SIGUSR1 dumps the stacks of a job, as LiveKit documents it, and the call goes on."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from support import eventually

from greenroom import ExitReport, ProcessPool

MakeAgent = Callable[[str], Path]

AGENT = """
server = AgentServer(ws_url="ws://127.0.0.1:9", api_key="key", api_secret="a secret of thirty-two characters")
SET_UP

async def waits_for_its_end():
    note("waits")
    while not Path(__file__).with_suffix(".gate").exists():
        await asyncio.sleep(0.01)

def holds_up_the_loop():
    note("computes")
    while not Path(__file__).with_suffix(".gate").exists():
        pass

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
    await waits_for_its_end()
    ctx.shutdown("done")
"""


async def signalled(app: Path, *, until: Callable[[], object]) -> ExitReport:
    """Run a job, and end it when it was sent SIGUSR1 and something has come of that."""
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        job = await pool.launch(order())
        await eventually(lambda: notes_of(app), "start of the job")
        assert job.pid is not None
        os.kill(job.pid, signal.SIGUSR1)
        await eventually(until, "what comes of the signal")
        app.with_suffix(".gate").touch()
        return await job.wait()


async def test_sigusr1_writes_the_stacks_of_a_job_into_a_file(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "dumps"
    monkeypatch.setenv("LK_DUMP_STACK_TRACES", "1")
    monkeypatch.setenv("LK_DUMP_DIR", str(folder))

    def dumped() -> str:
        return "".join(path.read_text() for path in folder.glob("*.stacktrace"))

    app = make_agent(AGENT.replace("SET_UP", ""))
    # LiveKit's file has only the first await of each task. The log has the whole stack, and follows the file.
    logged = "in waits_for_its_end"
    report = await signalled(app, until=lambda: "MEMORY USAGE" in dumped() and logged in caplog.text)
    assert (report.outcome, report.result) == ("succeeded", {"ended_by": "done"}), report.error
    assert f"(pid {report.pid}) stack trace dump" in dumped()
    assert "Name: job_user_entrypoint" in dumped()


async def test_sigusr1_shows_where_a_job_computes_that_holds_up_its_loop(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A task that runs has no stack of its own: its innermost frames are those that the signal has interrupted."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("LK_DUMP_STACK_TRACES", "1")
    monkeypatch.setenv("LK_DUMP_DIR", str(tmp_path))
    app = make_agent(AGENT.replace("SET_UP", "").replace("await waits_for_its_end()", "holds_up_the_loop()"))
    # A log record of a process that computes is sent when the process has time for it.
    report = await signalled(app, until=lambda: any(tmp_path.glob("*.stacktrace")))
    assert report.outcome == "succeeded", report.error
    assert "in holds_up_the_loop" in caplog.text


@pytest.mark.more
async def test_a_job_that_is_to_dump_nothing_says_what_to_set(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("LK_DUMP_STACK_TRACES", raising=False)
    app = make_agent(AGENT.replace("SET_UP", ""))
    report = await signalled(app, until=lambda: "set LK_DUMP_STACK_TRACES=1" in caplog.text)
    assert report.outcome == "succeeded", report.error


OWN = {
    "Python": "server.setup_fnc = lambda proc: __import__('signal').signal(10, lambda *_: note('its own'))",
    "faulthandler": "import faulthandler\nfaulthandler.register(10, open(Path(__file__).with_suffix('.notes'), 'a'))",
}


@pytest.mark.more
async def test_a_handler_of_the_app_stays_in_place(make_agent: MakeAgent) -> None:
    await check_own_handler(make_agent, "Python")


async def check_own_handler(make_agent: MakeAgent, case: str) -> None:
    app = make_agent(AGENT.replace("SET_UP", OWN[case]))
    report = await signalled(app, until=lambda: len(notes_of(app)) > 1)
    assert report.outcome == "succeeded", report.error
