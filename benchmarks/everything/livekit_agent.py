"""The LiveKit half of the app under soak, as an app of Greenroom's. Copied beside ``agent.py``."""

import asyncio
import math

from ledger_lines import note
from livekit.agents import AgentServer, JobContext, JobRequest

from greenroom.integrations.livekit.agent.adapter import adapt

server = AgentServer(load_fnc=lambda: 0.0, load_threshold=math.inf, port=0)


async def on_request(request: JobRequest) -> None:
    await request.accept(name="soak")


@server.rtc_session(agent_name="soak", on_request=on_request)
async def agent(ctx: JobContext) -> None:
    note("enter", ctx.job.id, ctx.job.room.name)
    await ctx.connect()
    await ctx.room.local_participant.set_attributes({"sign": f"{ctx.job.id} {ctx.room.name}"})
    await asyncio.sleep(float(ctx.room.name.rpartition("-")[2]))
    note("end", ctx.job.id, ctx.room.name)
    ctx.shutdown(ctx.room.name)


app = adapt(server)
