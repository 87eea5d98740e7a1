"""The agents used here work in a room of the real server under livekit-agents' own worker: the baseline."""

from __future__ import annotations

import pytest
from rooms.caller import Caller
from rooms.livekit_server import LiveKitServer
from rooms.stock_worker import AGENTS, StockWorker
from support import eventually, is_gone

pytestmark = pytest.mark.in_pairs

TONE = 880


async def test_an_agent_is_in_each_new_room_and_answers_its_caller(livekit: LiveKitServer) -> None:
    async with StockWorker(livekit, AGENTS / "answer_options.py") as worker:
        await worker.ready()
        async with Caller(livekit.url, livekit.tokens.caller("ann", "hall"), say=440) as ann:
            agent = await ann.agent()
            assert (agent["name"], agent["attributes"]["asked"]) == ("Answering machine", "yes")
            await ann.hears_tone(agent["identity"], TONE)
            await ann.hush()
            await ann.event("silent", identity=agent["identity"])
            await ann.send("leave")
            await ann.event("left", identity=agent["identity"])
        await worker.logs("call in hall ended: told to leave")


@pytest.mark.more
async def test_an_agent_is_dispatched_by_name_and_breaks_when_told(livekit: LiveKitServer) -> None:
    async with StockWorker(livekit, AGENTS / "answer.py", agent_name="greeter") as worker:
        await worker.ready()
        async with livekit.api() as api, Caller(livekit.url, livekit.tokens.caller("ann", "hall"), say=440) as ann:
            await ann.connected()
            await api.dispatch("greeter", "cellar", metadata="raise")
            await worker.logs("told to raise")
            assert not await api.participants("cellar")
            await api.dispatch("greeter", "hall")
            agent = (await ann.agent())["identity"]
            await ann.hears_tone(agent, TONE)
            pid = int((await ann.attributes(agent, "pid"))["pid"])
            await ann.send("exit")
            await eventually(lambda: is_gone(pid), "end of the agent's process")
            await ann.event("silent", identity=agent)
