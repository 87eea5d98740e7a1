"""An agent with habits of people's own; the metadata of a dispatch says which call it is."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal

from livekit.agents import AgentServer, JobContext, JobRequest, cli
from livekit.agents.inference_runner import _InferenceRunner
from prometheus_client import Counter

logger = logging.getLogger("habits")
greetings = Counter("greetings", "Calls that were greeted.")
requests = 0


class Reverse(_InferenceRunner):
    """A model that all calls share."""

    INFERENCE_METHOD = "reverse"

    def initialize(self) -> None: ...

    def run(self, data: bytes) -> bytes:
        return data[::-1]


_InferenceRunner.register_runner(Reverse)

server = AgentServer(
    num_idle_processes=1,
    load_fnc=lambda: 0.0,  # a test machine is busy with other tests
    load_threshold=math.inf,
    initialize_process_timeout=60.0,
    port=int(os.environ["PORT"]),
    prometheus_port=int(os.environ["METRICS_PORT"]),
)


async def on_request(request: JobRequest) -> None:
    global requests
    requests += 1
    await asyncio.sleep(0.3)  # looks the caller up
    await request.accept(name="Habitual", attributes={"requests": str(requests)})


async def session_ended(ctx: JobContext) -> None:
    logger.info("session ended")


@server.rtc_session(on_request=on_request, on_session_end=session_ended)
async def entrypoint(ctx: JobContext) -> None:
    async def ended(reason: str) -> None:
        logger.info("call ended: %s", reason)

    ctx.add_shutdown_callback(ended)
    if ctx.job.metadata == "never connects":
        logger.info("has nothing to do in a room")
        return
    await ctx.connect()
    greetings.inc()
    logger.info("greeted as request %s", ctx.room.local_participant.attributes["requests"])
    logger.info("inferred %s", await ctx.inference_executor.do_inference("reverse", b"abc"))
    if ctx.job.metadata == "drained":
        logger.info("talks")
        while not os.path.exists(os.environ["GATE"]):
            await asyncio.sleep(0.05)
    elif ctx.job.metadata == "dumped":
        os.kill(os.getpid(), signal.SIGUSR1)
        while not any(name.endswith(".stacktrace") for name in os.listdir(os.environ["LK_DUMP_DIR"])):
            await asyncio.sleep(0.05)
        logger.info("goes on after a dump of its stacks")
    ctx.shutdown("told enough")


if __name__ == "__main__":
    cli.run_app(server)
