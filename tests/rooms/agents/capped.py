"""An agent that caps its worker by a load function, and notes what it is told of the worker.

Each job lasts until there is a file by the name of its room in the folder ``GATES``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from livekit.agents import AgentServer, JobContext, JobRequest, cli

logger = logging.getLogger("capped")
gates = Path(os.environ["GATES"])


def load(worker: AgentServer) -> float:
    """Return 1 for two calls; an info that lacks what LiveKit's has counts for nothing."""
    jobs = [
        info
        for info in worker.active_jobs
        if info.job.id and info.job.room.name and info.accept_arguments.identity and info.token and info.worker_id
    ]
    return len(jobs) / 2


server = AgentServer(load_fnc=load, load_threshold=0.7, num_idle_processes=2, initialize_process_timeout=60.0, port=0)


@server.on("worker_started")
def started() -> None:
    asyncio.get_running_loop()
    logger.info("the worker has started, and is %s", server.id)


@server.on("worker_registered")
def registered(worker_id: str, info: object) -> None:
    logger.info("the worker is registered: %s %s %s", worker_id, server.id, type(info).__name__)


async def on_request(request: JobRequest) -> None:
    await request.accept(name="Capped")


@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    logger.info("a call in %s", ctx.job.room.name)
    while not (gates / ctx.job.room.name).exists():
        await asyncio.sleep(0.02)
    ctx.shutdown("told enough")


if __name__ == "__main__":
    cli.run_app(server)
