"""livekit-agents' own process pool, started the way its worker starts it.

`AgentServer` cannot run without a LiveKit server, so the pool is made here with the arguments that
`worker.py` passes; the private names read below are how one can tell that it is quiet.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable
from typing import cast

from livekit import api, protocol
from livekit.agents.ipc.job_proc_executor import ProcJobExecutor
from livekit.agents.ipc.proc_pool import ProcPool
from livekit.agents.job import JobAcceptArguments, JobExecutorType, RunningJobInfo
from livekit.agents.utils import http_context

from benchmarks.peers import livekit_job
from benchmarks.peers.base import JobMetadata
from benchmarks.peers.inbox import Inbox

# As worker.py preloads: the user's modules, the framework's warm-up, and the freeze last.
PRELOAD = [
    "benchmarks.peers.livekit_job",
    "livekit.agents.ipc._preload",
    "livekit.agents.ipc._preload_freeze",
]


class LiveKitPool:
    def __init__(self, inbox: Inbox, start_method: str) -> None:
        http_context._set_default_cert_env()
        self._context = multiprocessing.get_context(start_method)
        if start_method == "forkserver":
            self._context.set_forkserver_preload(PRELOAD)
        self._running: dict[str, asyncio.Future[None]] = {}

    async def open(self, idle: int, most: int) -> None:
        self._make(idle)
        await self._pool.start()  # gives up waiting after its initialize_timeout
        while self._warm() < idle:
            await asyncio.sleep(0.01)

    def _make(self, idle: int) -> None:
        self._idle = idle
        self._pool = ProcPool(
            initialize_process_fnc=livekit_job.setup,
            job_entrypoint_fnc=livekit_job.entrypoint,
            session_end_fnc=None,
            simulation_end_fnc=None,
            num_idle_processes=idle,
            initialize_timeout=10.0,
            close_timeout=10.0,
            session_end_timeout=300.0,
            inference_executor=None,
            job_executor_type=JobExecutorType.PROCESS,
            mp_ctx=self._context,
            memory_warn_mb=1000,
            memory_limit_mb=0,
            http_proxy=None,
            loop=asyncio.get_running_loop(),
        )
        self._pool.on("process_closed", self._on_closed)

    def _warm(self) -> int:
        return self._pool._warmed_proc_queue.qsize()

    async def settled(self) -> None:
        while self._warm() < self._idle or len(self._pool.processes) > self._idle:
            await asyncio.sleep(0.005)

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        info = _job(metadata)
        self._running[info.job.id] = ended = asyncio.get_running_loop().create_future()
        await self._pool.launch_job(info)
        return ended

    def _on_closed(self, process: ProcJobExecutor) -> None:
        if process.running_job is not None:
            self._running.pop(process.running_job.job.id).set_result(None)

    def idle_pids(self) -> list[int]:
        executors = cast(list[ProcJobExecutor], self._pool.processes)
        return [one.pid for one in executors if one.pid is not None and one.running_job is None]

    async def cold(self, count: int) -> AsyncIterator[float]:
        """From the pool's decision to start a process, one at a time, to that process being ready."""
        self._make(count + 1)
        times: asyncio.Queue[int] = asyncio.Queue()
        for event in ("process_created", "process_ready"):
            self._pool.on(event, lambda _process: times.put_nowait(time.monotonic_ns()))
        self._pool.set_target_idle_processes(0)
        starting = asyncio.ensure_future(self._pool.start())
        for target in range(1, count + 2):
            self._pool.set_target_idle_processes(target)
            created, ready = await times.get(), await times.get()
            if target > 1:  # the first one also started the forkserver
                yield (ready - created) / 1e6
            await asyncio.sleep(0.05)
        starting.cancel()


def _job(metadata: JobMetadata) -> RunningJobInfo:
    name = f"room-{metadata['id']}"
    return RunningJobInfo(
        accept_arguments=JobAcceptArguments(name="agent", identity=f"agent-{metadata['id']}", metadata=""),
        job=protocol.agent.Job(
            id=f"AJ_{metadata['id']}",
            room=protocol.models.Room(name=name, sid=f"RM_{metadata['id']}"),
            metadata=json.dumps(metadata),
        ),
        url="ws://127.0.0.1:7880",
        token=api.AccessToken("devkey", "secret").to_jwt(),
        worker_id="AW_bench",
        fake_job=False,
        received_at=time.time(),
    )
