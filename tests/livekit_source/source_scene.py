"""The real worker command, a dispatcher that follows a script, and an app for which LiveKit is only a source."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dispatcher import Dispatcher
from faults.stage import Stage
from server.running_worker import RunningWorker
from support import eventually

__all__ = ["ACTOR", "MakeApp", "Scene", "scene"]

MakeApp = Callable[[str], str]

ACTOR = """
from livekit.protocol import agent
from greenroom.integrations.livekit.job_order import Order

app.manifest["livekit"] = {"agent_name": "actor", "worker_type": "room", "permissions": {"hidden": True}}

def order_of(job):
    order = Order.decode(job.metadata)
    return order, agent.Job.FromString(order.job)

@app.entrypoint
async def entrypoint(ctx):
    order, job = order_of(ctx.job)
    note("start", ctx.job.id)
    note("order", job.id, order.restarts, order.url, order.accept.identity, order.worker_id, order.token)
    if job.metadata == "raise":
        raise ValueError("no such table")
    if job.metadata == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.metadata == "crash once" and not order.restarts:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.metadata == "stall":
        time.sleep(3600)
    if job.metadata != "quick":
        await on_stage("job", job.id)
"""
"""It does what the job's metadata says: by default it stays on stage until it is ordered to leave."""

STEADY = ("--num-idle-processes", "2", "--max-idle-processes", "2")


class Scene:
    def __init__(self, dispatcher: Dispatcher, worker: RunningWorker, stage: Stage, app: str) -> None:
        self.dispatcher = dispatcher
        self.worker = worker
        self.stage = stage
        self.app = app

    async def started(self, *job_ids: str) -> None:
        """Wait until these jobs have entered their entrypoint, each once, and no others have."""
        expected = dict.fromkeys(job_ids, 1)
        await eventually(lambda: self.stage.starts() == expected, f"starts of {job_ids} and no others")


@asynccontextmanager
async def scene(make_app: MakeApp, *options: str, source: str = ACTOR) -> AsyncIterator[Scene]:
    """A worker that connects to a dispatcher."""
    async with Stage(make_app) as stage, Dispatcher() as dispatcher:
        environment = {**os.environ, **dispatcher.environment}
        app = stage.app(source)
        async with RunningWorker(app, *STEADY, *options, env=environment) as worker:
            yield Scene(dispatcher, worker, stage, app)
