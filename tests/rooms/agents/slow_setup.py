"""Loads a model for longer than any worker waits by default, and says so in its options, as it does of its port."""

import math
import os
import time

from livekit.agents import AgentServer, JobContext, JobProcess, cli


def setup(process: JobProcess) -> None:
    time.sleep(11)
    print("process is set up", flush=True)


server = AgentServer(
    setup_fnc=setup,
    num_idle_processes=1,
    initialize_process_timeout=120.0,
    load_threshold=math.inf,
    host="127.0.0.1",
    port=int(os.environ["PORT"]),
)


@server.rtc_session(agent_name=os.environ.get("LIVEKIT_AGENT_NAME", ""))
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
