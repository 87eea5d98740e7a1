"""An agent that has something to do at its end. ``python ending.py start``; settings as those of ``answer.py``."""

import asyncio
import logging
import math

from livekit.agents import AgentServer, JobContext, cli

SECONDS = 4.0

logger = logging.getLogger("ending")


async def session_ended(ctx: JobContext) -> None:
    logger.info("sums up the call")
    await asyncio.sleep(SECONDS)
    logger.info("has summed up the call")


server = AgentServer(
    num_idle_processes=1,
    load_fnc=lambda: 0.0,  # a test machine is busy with other tests
    load_threshold=math.inf,
    initialize_process_timeout=60.0,
    port=0,
)


@server.rtc_session(on_session_end=session_ended)
async def entrypoint(ctx: JobContext) -> None:
    async def callback(reason: str) -> None:
        logger.info("hangs up: %s", reason)

    ctx.add_shutdown_callback(callback)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
