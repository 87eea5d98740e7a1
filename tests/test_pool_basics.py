"""The main path of a session, and its reports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import idle_pids

from greenroom import PoolClosed, ProcessPool

ECHO = """
@app.prewarm
async def prewarm(proc):
    proc.userdata["warm"] = True

@app.entrypoint
async def entrypoint(ctx):
    return {"pid": os.getpid(), "metadata": ctx.job.metadata, "warm": ctx.proc.userdata["warm"]}
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


async def test_a_closed_pool_says_so(make_app: Callable[[str], str]) -> None:
    pool = ProcessPool(make_app(ECHO))
    with pytest.raises(PoolClosed, match="not been started"):
        await pool.launch()
    await pool.aclose()
    with pytest.raises(PoolClosed, match="was closed"):
        await pool.launch()
