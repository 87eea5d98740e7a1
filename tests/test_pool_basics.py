"""The main path of a session, and its reports."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE, idle_pids

from greenroom import AppLoadError, PoolClosed, ProcessPool

ECHO = """
@app.prewarm
async def prewarm(proc):
    proc.userdata["warm"] = True

@app.entrypoint
async def entrypoint(ctx):
    return {"pid": os.getpid(), "metadata": ctx.job.metadata, "warm": ctx.proc.userdata["warm"]}
"""

STAYS = """
@app.entrypoint
async def entrypoint(ctx):
    await asyncio.sleep(0.2 if ctx.job.metadata == "completed" else 1000)
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_a_session_runs_in_a_warm_process_of_its_own(make_app: Callable[[str], str], start_method: str) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=2, start_method=start_method) as pool:
        warm = idle_pids(pool)
        assert len(warm) == 2
        handle = await pool.launch({"caller": "+1555"})
        report = await handle.wait()
        assert handle.launch_type == "warm"
        assert handle.pid in warm
        assert report.result == {"pid": handle.pid, "metadata": {"caller": "+1555"}, "warm": True}
        assert (report.outcome, report.reason, report.exit_code) == ("succeeded", "completed", 0)


async def test_what_python_ignores_in_its_path_is_ignored(
    make_app: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("lib")])
    async with ProcessPool(make_app(ECHO), num_idle_processes=1) as pool:
        assert (await (await pool.launch()).wait()).outcome == "succeeded"


async def test_an_interpreter_that_does_not_know_its_program_says_so_at_once(
    make_app: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is embedded in another program."""
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(AppLoadError, match="could not be started: TypeError"):
        await ProcessPool(make_app(ECHO), preload_timeout=3600).start()


async def test_a_closed_pool_says_so(make_app: Callable[[str], str]) -> None:
    pool = ProcessPool(make_app(ECHO))
    with pytest.raises(PoolClosed, match="not been started"):
        await pool.launch()
    await pool.aclose()
    with pytest.raises(PoolClosed, match="was closed"):
        await pool.launch()


@pytest.mark.parametrize("end", ["completed", "signaled"])
async def test_a_log_filter_that_raises_costs_no_report(make_app: Callable[[str], str], end: str) -> None:
    """A program may set filters on our logger, and they may be wrong."""
    failures: list[BaseException | None] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context.get("exception")))

    def wrong(record: logging.LogRecord) -> bool:
        raise LookupError("no such field")

    logger = logging.getLogger("greenroom")
    async with ProcessPool(make_app(STAYS), num_idle_processes=1) as pool:
        handle = await pool.launch(end)
        logger.addFilter(wrong)
        try:
            if end == "signaled":
                os.kill(handle.pid or 0, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE):
                report = await handle.wait()
        finally:
            logger.removeFilter(wrong)
        assert report.reason == end
        await asyncio.sleep(0)  # the turn in which the failure is to be logged
    assert {type(failure) for failure in failures} <= {LookupError}
