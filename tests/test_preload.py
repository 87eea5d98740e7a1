"""What preload leaves behind on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support import is_gone

from greenroom import ProcessPool

HELPER = """
import subprocess

@app.preload
def preload():
    global helper
    helper = subprocess.Popen(["sleep", "1000"])

@app.entrypoint
async def entrypoint(ctx):
    return helper.pid
"""


async def test_a_process_that_preload_started_serves_all_sessions_and_ends_with_the_pool(
    make_app: Callable[[str], str],
) -> None:
    async with ProcessPool(make_app(HELPER), num_idle_processes=1) as pool:
        for _ in range(3):  # the end of each session is when leftovers are looked for
            report = await (await pool.launch()).wait()
            assert report.outcome == "succeeded"
            assert Path(f"/proc/{report.result}/cmdline").read_bytes() == b"sleep\x001000\x00"
            assert report.descendants_killed == 0
    assert is_gone(report.result)
