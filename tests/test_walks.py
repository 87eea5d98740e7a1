"""Costly looks at processes: they are made in a thread, and never on the supervisor's event loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

from support import DEADLINE

APP = """
@app.preload
def preload():
    app.image = bytearray(b"x") * (120 << 20)

@app.entrypoint
async def entrypoint(ctx):
    own = b"x" * (ctx.job.metadata << 20)
    await asyncio.sleep(1000)
"""

PROGRAM = """
import asyncio, json, sys, threading
from collections import Counter
from greenroom import ProcessPool
from greenroom.pool.events import MemorySampled

looks = Counter()

def note(event, arguments):
    if event == "open" and "smaps" in str(arguments[0]):
        looks[threading.current_thread() is threading.main_thread()] += 1

async def main():
    sampled = asyncio.Queue()
    async with ProcessPool(sys.argv[1], num_idle_processes=1, memory_warn_mb=100, memory_limit_mb=150) as pool:
        sys.addaudithook(note)
        readers = [await pool.launch(0) for _ in range(5)]
        pool.subscribe(lambda event: sampled.put_nowait(event) if isinstance(event, MemorySampled) else None)
        for _ in range(4):
            await sampled.get()
        quiet = dict(looks)
        report = await (await pool.launch(400)).wait()
        for reader in readers:
            reader.cancel("done")
    found = {"in_loop": looks[True], "before": quiet.get(False, 0), "all": looks[False], "reason": report.reason}
    print(json.dumps(found))

asyncio.run(main())
"""


async def test_page_tables_are_read_in_a_thread_and_only_of_processes_that_may_have_grown(
    make_app: Callable[[str], str],
) -> None:
    """Five sessions only read an image that is larger than the limit. Then one grows beyond it by itself."""
    command = [sys.executable, "-c", PROGRAM, make_app("import asyncio\n" + APP)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["in_loop"] == 0
    assert found["reason"] == "memory_limit"
    assert found["before"] <= 8  # samples of one idle and one running process in each look; no session is confirmed
    assert found["all"] > found["before"]
