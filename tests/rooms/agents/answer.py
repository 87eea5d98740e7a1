"""An agent as one is written for livekit-agents today. ``python answer.py start``; settings from the environment.

``IDLE`` is the number of idle processes, ``JOBS`` what starts a job: ``ROOM`` or ``PUBLISHER``.
The agent's name is livekit-agents' own variable, ``LIVEKIT_AGENT_NAME``.
"""

import math
import os

import answering
from livekit.agents import AgentServer, JobContext, WorkerType, cli

server = AgentServer(
    num_idle_processes=int(os.environ.get("IDLE", "3")),
    load_fnc=lambda: 0.0,  # a test machine is busy with other tests
    load_threshold=math.inf,
    initialize_process_timeout=60.0,
    port=0,
)
server.setup_fnc = answering.setup


@server.rtc_session(
    type=WorkerType[os.environ.get("JOBS", "ROOM")],
    on_request=answering.request,
    on_session_end=answering.session_ended,
)
async def entrypoint(ctx: JobContext) -> None:
    await answering.answer(ctx)


if __name__ == "__main__":
    cli.run_app(server)
