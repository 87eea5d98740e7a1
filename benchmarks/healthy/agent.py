"""The app of the healthy load: calls that think a little, ten times a second."""

import asyncio
import logging
import time

import greenroom

app = greenroom.App()


@app.prewarm
def prewarm(proc: greenroom.JobProcess) -> None:
    proc.userdata["words"] = [str(number) for number in range(10_000)]


@app.entrypoint
async def entrypoint(ctx: greenroom.JobContext) -> str:
    end = time.monotonic() + ctx.job.metadata["seconds"]
    logging.getLogger("agent").info("hello %s", ctx.job.metadata["caller"])
    while (left := end - time.monotonic()) > 0:
        sorted(ctx.proc.userdata["words"][:500])
        await asyncio.sleep(min(left, 0.1))
    return "goodbye"
