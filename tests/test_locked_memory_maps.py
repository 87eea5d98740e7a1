"""A session can keep the memory map of its processes locked, by a file system of its own (FUSE).

Who then reads the command line, the environment or the page tables of such a process waits for as long as the session
likes. So nobody reads them who has other work: the tests note each file that the zygote and the supervisor open.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE

APP = """
import asyncio, os, subprocess, sys
from multiprocessing import resource_tracker, shared_memory

def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/proc/") and os.getpid() == ZYGOTE:
        opened = os.open("FOLDER/opened", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(opened, f"{arguments[0]}\\n".encode())
        os.close(opened)

@app.preload
def preload():
    global ZYGOTE
    ZYGOTE = os.getpid()
    sys.addaudithook(note)

@app.entrypoint
async def entrypoint(ctx):
    # A tracker, a process of another group, and an orphan of both.
    app.memory = shared_memory.SharedMemory(create=True, size=100)
    with open("FOLDER/memory", "w") as file:
        file.write(app.memory.name)
    started = [str(os.getpid()), str(resource_tracker._resource_tracker._pid)]
    for command in ("echo $$; exec sleep 1000", "sleep 1000 & echo $$ $!; exec sleep 1000"):
        shell = subprocess.Popen(["sh", "-c", command], start_new_session=True, stdout=subprocess.PIPE, text=True)
        started += shell.stdout.readline().split()
    with open("FOLDER/started", "w") as file:
        file.write(" ".join(started))
    if ctx.job.metadata == "stay":
        with open("FOLDER/runs", "w"):
            pass
        await asyncio.sleep(1000)
    os._exit(1)
"""

PROGRAM = """
import asyncio, json, os, signal, sys
from greenroom import ProcessPool

opened, LOST = [], sys.argv[2] == "lost"

def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/proc/"):
        opened.append(str(arguments[0]))

async def main():
    async with ProcessPool(sys.argv[1], num_idle_processes=1, memory_limit_mb=None) as pool:
        sys.addaudithook(note)
        job = await pool.launch("stay" if LOST else "leave")
        if LOST:
            while not os.path.exists("FOLDER/runs"):
                await asyncio.sleep(0.01)
            (pid,) = (process.pid for process in pool.processes if process.state == "running")
            with open(f"/proc/{pid}/stat") as stat:
                zygote = int(stat.read().rpartition(")")[2].split()[1])
            os.kill(zygote, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        report = await job.wait()
    print(json.dumps([report.reason, opened]))

asyncio.run(main())
"""

LOCKED = {"cmdline", "environ", "maps", "smaps", "numa_maps", "pagemap", "mem"}


@pytest.mark.parametrize("case", ["zygote", "lost"])
async def test_orphans_are_ended_without_a_look_into_their_memory(
    make_app: Callable[[str], str], tmp_path: Path, case: str
) -> None:
    app, program = (text.replace("FOLDER", str(tmp_path)) for text in (APP, PROGRAM))
    command = [sys.executable, "-c", program, make_app(app), case]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    reason, opened = json.loads(done.stdout.splitlines()[-1])
    started = (tmp_path / "started").read_text().split()
    assert len(started) == 5
    assert [pid for pid in started if Path("/proc", pid).exists()] == [], reason
    opened += (tmp_path / "opened").read_text().splitlines()
    of_session = [path for path in opened if path.split("/")[2] in started]
    assert [path for path in of_session if path.endswith("/status")], "the hook notes what is opened"
    assert [path for path in of_session if path.rpartition("/")[2] in LOCKED] == []
    memory = (tmp_path / "memory").read_text()
    assert not Path("/dev/shm", memory.lstrip("/")).exists(), "the tracker has had its time"
