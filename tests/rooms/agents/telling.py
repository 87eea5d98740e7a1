"""Logs what an agent logs: lines of its own, of LiveKit, of a session and of a plugin. Its caller ends the call."""

import logging
import os
import time

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, Plugin, cli, metrics
from livekit.agents.metrics import STTMetrics

check = logging.getLogger("livekit.plugins.check")
mine = logging.getLogger("mine")


class Check(Plugin):
    def __init__(self) -> None:
        super().__init__("livekit.plugins.check", "1", "json", check)


Plugin.register_plugin(Check())
server = AgentServer(load_fnc=lambda: 0.0, num_idle_processes=1, initialize_process_timeout=60.0, port=0)


@server.rtc_session(agent_name=os.environ.get("LIVEKIT_AGENT_NAME", ""))
async def entrypoint(ctx: JobContext) -> None:
    async def on_shutdown(reason: str) -> None:
        mine.info("call ended: %s", reason)

    ctx.add_shutdown_callback(on_shutdown)
    session: AgentSession = AgentSession()
    await session.start(Agent(instructions="none"), room=ctx.room)
    timing = {"timestamp": time.time(), "duration": 0.1, "audio_duration": 4.5}
    metrics.log_metrics(STTMetrics(label="stt", request_id="r", streamed=True, **timing))
    for logger in (check, mine, logging.getLogger("livekit"), logging.getLogger("httpx")):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logger.log(level, "%s tells", logger.name)
    session.on("close", lambda _: ctx.shutdown("told enough"))


if __name__ == "__main__":
    cli.run_app(server)
