"""An agent written for livekit-agents, as a file, and what it noted down while it ran."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from support import DEADLINE, eventually

if TYPE_CHECKING:
    from livekit.agents.job import RunningJobInfo

__all__ = ["Events", "Notes", "load_agent", "make_pool", "running_job"]

AGENT = """
import asyncio, logging, os, signal, sys, time
from livekit.agents import AgentServer, JobContext, JobProcess

def note(*words):
    fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (" ".join(map(str, words)) + "\\n").encode())
    os.close(fd)

def setup(proc: JobProcess):
    proc.userdata["pid"] = os.getpid()

def setup_slow(proc: JobProcess):
    time.sleep(60)

def setup_gated(proc: JobProcess):
    while not os.path.exists(NOTES + ".gate"):
        time.sleep(0.01)
    setup(proc)

def setup_failing(proc: JobProcess):
    raise ValueError("no database")

async def session_end(ctx: JobContext):
    note("session_end", ctx.job.id)

async def entrypoint(ctx: JobContext):
    what = ctx.job.metadata
    assert ctx.proc.userdata["pid"] == os.getpid()

    async def callback(reason):
        note("callback", ctx.job.id, reason)
        if what == "slow-callback":
            await asyncio.sleep(60)

    ctx.add_shutdown_callback(callback)
    note("start", ctx.job.id, os.getpid(), ctx.room.name)
    if what == "raise":
        raise ValueError("a bad line")
    elif what == "log":
        ctx.log_context_fields = {"caller": "Ada"}
        logging.getLogger("agent.calls").info("hello", extra={"count": 1})
        ctx.shutdown("done")
    elif what == "leave":
        ctx.shutdown("done")
    elif what == "cancel":
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        sys.exit(3)
    elif what == "eat":
        eaten = [bytearray(b"x" * (1 << 20)) for _ in range(400)]
    elif what == "infer":
        note("inferred", ctx.job.id, await ctx.inference_executor.do_inference("upper", b"abc"))
        try:
            await ctx.inference_executor.do_inference("nothing", b"")
        except RuntimeError as error:
            note("failed", ctx.job.id, error)
        ctx.shutdown("done")

server = AgentServer(setup_fnc=setup, load_fnc=lambda: 0.1, num_idle_processes=1, port=0, host="127.0.0.1",
                     load_threshold=0.7)
server.rtc_session(entrypoint, agent_name="dropin", on_session_end=session_end)
server_of_lambdas = AgentServer(setup_fnc=lambda proc: proc.userdata.update(pid=os.getpid()))
"""

_numbers = itertools.count()


class Notes:
    """What jobs have written down, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open_gate(self) -> None:
        self._path.with_suffix(".gate").touch()

    def of(self, word: str) -> list[list[str]]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [words[1:] for words in map(str.split, lines) if words[0] == word]

    async def wait_for(self, word: str, count: int = 1) -> list[list[str]]:
        await eventually(lambda: len(self.of(word)) >= count, f"{count} notes of {word!r}")
        return self.of(word)


def load_agent(directory: Path) -> Iterator[tuple[ModuleType, Notes]]:
    """Write the agent and import it, as ``python agent.py`` would: by its path."""
    path, notes = directory / "dropin_agent.py", directory / "notes"
    path.write_text(f"NOTES = {str(notes)!r}\n{AGENT}")
    name = f"dropin_agent_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module, Notes(notes)
    del sys.modules[name]


def make_pool(module: ModuleType, **arguments: Any) -> Any:
    """What LiveKit's worker makes, at the place where it looks for it, with the keywords that it gives."""
    from livekit.agents.ipc import proc_pool
    from livekit.agents.job import JobExecutorType

    return proc_pool.ProcPool(
        **{
            "initialize_process_fnc": module.setup,
            "job_entrypoint_fnc": module.entrypoint,
            "session_end_fnc": module.session_end,
            "simulation_end_fnc": None,
            "num_idle_processes": 1,
            "initialize_timeout": 30.0,
            "close_timeout": 10.0,
            "session_end_timeout": 300.0,
            "inference_executor": None,
            "job_executor_type": JobExecutorType.PROCESS,
            "mp_ctx": None,
            "memory_warn_mb": 0,
            "memory_limit_mb": 0,
            "http_proxy": None,
            "loop": asyncio.get_running_loop(),
            **arguments,
        }
    )


def running_job(what: str = "", job_id: str = "") -> RunningJobInfo:
    from livekit.agents.job import JobAcceptArguments, RunningJobInfo
    from livekit.protocol import agent, models

    job_id = job_id or f"AJ_{next(_numbers)}"
    room = models.Room(name=f"room-{job_id}", sid="RM_1")
    return RunningJobInfo(
        accept_arguments=JobAcceptArguments(name="", identity="agent", metadata=""),
        job=agent.Job(id=job_id, type=agent.JobType.JT_ROOM, room=room, metadata=what),
        url="ws://127.0.0.1:9",
        token="",
        worker_id="AW_1",
        fake_job=False,
        received_at=time.time(),
    )


class Events:
    """What a pool has emitted, in order."""

    def __init__(self, pool: Any) -> None:
        self.seen: list[tuple[str, Any]] = []
        for name in ("process_created", "process_started", "process_ready", "process_closed", "process_job_launched"):
            pool.on(name, lambda executor, name=name: self.seen.append((name, executor)))

    def of(self, name: str) -> list[Any]:
        return [executor for seen, executor in self.seen if seen == name]

    async def wait_for(self, name: str, count: int = 1) -> list[Any]:
        await eventually(lambda: len(self.of(name)) >= count, f"{count} events {name!r}", 2 * DEADLINE)
        return self.of(name)
