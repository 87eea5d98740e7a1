"""What programs do in sessions goes on behind walls.

Libraries of the extras: :mod:`test_compatible_libraries`. Sockets: :mod:`test_outer_domain`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE
from walled import NOBODY, walled

APP = """
import asyncio
import concurrent.futures
import multiprocessing
import os
import resource
import signal
import subprocess
import sys

from greenroom import App

app = App()


@app.service("double")
def load_double():
    return double


def double(x):
    return 2 * x


def by(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(double, (21,))


def by_executor():
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        return executor.submit(double, 21).result()


def by_manager():
    with multiprocessing.Manager() as manager:
        shared = manager.list([1])
        shared.append(2)
        return list(shared)


def kill_own_group():
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    os.killpg(child.pid, signal.SIGTERM)
    return child.wait()


def limit_a_child():
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    return subprocess.check_output(["sh", "-c", "ulimit -n"], preexec_fn=limit, text=True).strip()


def read_own():
    return b"PATH=" in open("/proc/self/environ", "rb").read()


def read_child():
    # In the middle of an exec(2), the environment is empty: so the program says when it runs.
    with subprocess.Popen(["sh", "-c", "echo runs; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with open(f"/proc/{child.pid}/environ", "rb") as file:
            return b"PATH=" in file.read()


def affinity():
    import threading

    os.sched_setaffinity(threading.get_native_id(), os.sched_getaffinity(0))
    return "set"


async def run_program():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6 * 7)", stdout=subprocess.PIPE)
    return (await process.communicate())[0].decode().strip()


@app.entrypoint
async def entrypoint(ctx):
    found = {
        "program": await run_program(),
        "fork": by("fork"),
        "spawn": by("spawn"),
        "forkserver": by("forkserver"),
        "executor": by_executor(),
        "manager": by_manager(),
        "service": await ctx.service("double", timeout=60)(21),
        "group": kill_own_group(),
        "limit": limit_a_child(),
        "own limit": resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, 0)) is not None,
        "own environment": read_own(),
        "environment of a child": read_child(),
        "affinity": affinity(),
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    found["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft - 1
    return found
"""


async def test_programs_go_on_behind_walls(tmp_path: Path) -> None:
    assert await result_behind_walls(tmp_path, APP, {}) == {
        "program": "42",
        "fork": 42,
        "spawn": 42,
        "forkserver": 42,
        "executor": 42,
        "manager": [1, 2],
        "service": 42,
        "group": -15,
        "limit": "64",
        "own limit": True,
        "own environment": True,
        "environment of a child": True,
        "affinity": "set",
        "files": True,
    }


TRACES = """
import shutil
import subprocess

from greenroom import App

app = App()
GDB = ["gdb", "--batch", "-nx"]


def output_of(command):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, text=True, **streams).stdout


def attached(command):
    # The tracer is another child of this session.
    with subprocess.Popen(["sleep", "3600"]) as child:
        try:
            return output_of([*command, str(child.pid)])
        finally:
            child.kill()


@app.entrypoint
async def entrypoint(ctx):
    found = {}
    if shutil.which("strace"):
        found["strace"] = output_of(["strace", "-f", "-e", "trace=execve", "sh", "-c", "exec true"])
    if shutil.which("gdb"):
        found["gdb"] = output_of([*GDB, "-ex", "run", "-ex", "print $_exitcode", "--args", shutil.which("true")])
    if shutil.which("gdb") and ctx.job.metadata["may_attach"]:
        found["gdb -p"] = attached([*GDB, "-ex", "print $pc != 0", "-p"])
    return found
"""
EXPECTED = {"strace": "+++ exited with 0 +++", "gdb": "$1 = 0", "gdb -p": "$1 = 1"}
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
"""File of a module that lets a process trace its descendants alone, and so no tracer that is another child."""


@pytest.mark.more
async def test_debuggers_trace_the_children_of_a_session(tmp_path: Path) -> None:
    may_attach = not YAMA.exists() or YAMA.read_text().strip() == "0"
    found = await result_behind_walls(tmp_path, TRACES, {"may_attach": may_attach})
    if not found:
        assert "CI" not in os.environ, "neither gdb nor strace is installed"
        pytest.skip("neither gdb nor strace is installed")
    assert {name: output for name, output in found.items() if EXPECTED[name] not in output} == {}


COUNTS = """
from greenroom import App
from prometheus_client import Counter

app = App()
calls = Counter("calls", "Calls.")

@app.entrypoint
async def entrypoint(ctx):
    calls.inc()
"""


@pytest.mark.more
async def test_metrics_of_several_processes_are_summed(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(COUNTS)
    with tempfile.TemporaryDirectory(prefix="greenroom-walls-") as folder:
        os.chmod(folder, 0o777)
        env = {"PROMETHEUS_MULTIPROC_DIR": folder}
        async with walled(NOBODY, "--walls", "require", app=app, has_victim=False, env=env) as worker:
            assert [(await worker.run({}))["reason"] for _ in range(2)] == ["completed"] * 2
            async with asyncio.timeout(DEADLINE):
                while "calls_total 2.0" not in (await worker.worker.fetch("GET", "/metrics/jobs")).text:
                    await asyncio.sleep(0.01)


async def result_behind_walls(folder: Path, source: str, metadata: Any) -> Any:
    """Run one session of an app behind all walls, and return its result."""
    app = folder / "app.py"
    app.write_text(source)
    async with walled(NOBODY, "--walls", "require", app=app, has_victim=False) as worker:
        report = await worker.run(metadata)
    assert report["reason"] == "completed", report
    return report["result"]
