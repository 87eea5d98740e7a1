"""The benchmark's image and session as a Greenroom app; the zygote imports it."""

import greenroom
from benchmarks import images
from benchmarks.images import session

image = images.current()
app = greenroom.App()


@app.preload
def preload() -> None:
    image.preload()


@app.prewarm
def prewarm(proc: greenroom.JobProcess) -> None:
    image.prewarm()


@app.entrypoint
async def entrypoint(ctx: greenroom.JobContext) -> None:
    await session.run(ctx.job.metadata)
