"""The user's module of the livekit-agents peer: the benchmark's image and session as a LiveKit job."""

from __future__ import annotations

import json

from livekit.agents import JobContext, JobProcess

from benchmarks import images
from benchmarks.images import session

image = images.current()


def setup(process: JobProcess) -> None:
    image.prewarm()


async def entrypoint(ctx: JobContext) -> None:
    await session.run(json.loads(ctx.job.metadata))
    ctx.shutdown("done")
