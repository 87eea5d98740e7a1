"""The infrastructure of the other tests here: the server, its API, and callers that hear each other."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import pytest
from livekit import api
from rooms.caller import Caller
from rooms.livekit_server import LiveKitServer
from support import DEADLINE, is_gone

pytestmark = pytest.mark.in_pairs


async def test_two_callers_hear_each_other(livekit: LiveKitServer) -> None:
    tokens = livekit.tokens
    async with (
        Caller(livekit.url, tokens.caller("ann", "hall", attributes={"line": "3"}), say=440) as ann,
        Caller(livekit.url, tokens.caller("bob", "hall"), say=620) as bob,
    ):
        joined = await bob.joined("ann")
        assert (joined["kind"], joined["attributes"]) == ("standard", {"line": "3"})
        await ann.joined("bob")
        assert (await ann.event("subscribed", identity="bob"))["sid"].startswith("TR_")
        await ann.hears_tone("bob", 620)
        await bob.hears_tone("ann", 440)
        await ann.hang_up()
        await ann.event("disconnected", reason="client_initiated")
        await bob.event("left", identity="ann")


async def test_a_caller_speaks_when_told(livekit: LiveKitServer, tmp_path: Path) -> None:
    recording = tmp_path / "words.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes((b"\x00\x20" * 8 + b"\x00\xe0" * 8) * 750)  # one and a half seconds of 500 Hz
    async with (
        Caller(livekit.url, livekit.tokens.caller("ann", "hall")) as ann,
        Caller(livekit.url, livekit.tokens.caller("bob", "hall")) as bob,
    ):
        await bob.event("subscribed", identity="ann")
        await ann.say(str(recording))
        await bob.hears_tone("ann", 500)
        await bob.event("silent", identity="ann")
        await ann.say(700)
        await bob.hears_tone("ann", 700)
        await ann.send("good night")
        await bob.event("data", identity="ann", text="good night")


async def test_a_caller_that_is_killed_falls_silent(livekit: LiveKitServer) -> None:
    async with (
        Caller(livekit.url, livekit.tokens.caller("ann", "hall"), say=440) as ann,
        Caller(livekit.url, livekit.tokens.caller("bob", "hall")) as bob,
    ):
        await bob.hears("ann")
        ann.kill()
        # That it has left is told about 20 s later: until then the server expects it back.
        await bob.event("silent", identity="ann")


async def test_a_caller_says_why_it_could_not_join(livekit: LiveKitServer) -> None:
    async with Caller(livekit.url, "not a token") as ann:
        assert "401" in (await ann.event("failed"))["error"]


async def test_the_api_makes_lists_and_deletes(livekit: LiveKitServer) -> None:
    async with livekit.api() as api_:
        await api_.create_room("hall", agents=["greeter"], metadata="VIP")
        assert [room.name for room in await api_.rooms()] == ["hall"]
        [first] = await api_.dispatches("hall")
        assert (first.agent_name, first.metadata) == ("greeter", "VIP")
        second = await api_.dispatch("waiter", "hall", metadata="table 4")
        assert {one.id for one in await api_.dispatches("hall")} == {first.id, second.id}
        await api_.delete_dispatch(first.id, "hall")
        assert [one.id for one in await api_.dispatches("hall")] == [second.id]
        async with Caller(livekit.url, livekit.tokens.caller("ann", "hall")) as ann:
            await ann.connected()
            assert [who.identity for who in await api_.participants("hall")] == ["ann"]
            async with asyncio.timeout(
                DEADLINE
            ):  # a room that goes while she publishes her track ends her with an error
                while not any(who.tracks for who in await api_.participants("hall")):
                    await asyncio.sleep(0.05)
            await api_.delete_room("hall")
            await ann.event("disconnected", reason="room_deleted")
        assert not await api_.rooms()
        with pytest.raises(api.TwirpError, match="not_found"):
            await api_.delete_room("hall")


async def test_a_token_can_ask_for_agents(livekit: LiveKitServer) -> None:
    token = livekit.tokens.caller("ann", "hall", agents=["greeter"])
    async with livekit.api() as api_, Caller(livekit.url, token) as ann:
        await ann.connected()
        assert [one.agent_name for one in await api_.dispatches("hall")] == ["greeter"]


async def test_a_restart_keeps_the_address_and_callers_come_back(livekit: LiveKitServer) -> None:
    url, pid = livekit.url, livekit.pid
    async with Caller(url, livekit.tokens.caller("ann", "hall"), say=440) as ann:
        await ann.event("published")
        await livekit.restart()
        assert (livekit.url, is_gone(pid)) == (url, True)
        async with Caller(url, livekit.tokens.caller("bob", "hall")) as bob:
            await ann.event("reconnected")
            await bob.hears("ann")


async def test_a_stopped_server_ends_its_calls(livekit: LiveKitServer) -> None:
    async with Caller(livekit.url, livekit.tokens.caller("ann", "hall")) as ann:
        await ann.event("published")  # one that still waits for the answer to that would fail for lack of it
        await livekit.stop()
        # Busy, it closes the connection before its word of the shutdown was sent. Then the caller tries to come back.
        ended = await ann.event("disconnected")
        assert ended["reason"] in ("server_shutdown", "unknown_reason")
    await livekit.start()


async def test_servers_run_side_by_side(livekit: LiveKitServer, livekit_binary: Path, tmp_path: Path) -> None:
    async with LiveKitServer(livekit_binary, tmp_path / "second.log") as second:
        assert second.url != livekit.url
        async with livekit.api() as here, second.api() as there:
            await asyncio.gather(here.create_room("hall"), there.create_room("garden"))
            assert [room.name for room in await here.rooms()] == ["hall"]
            assert [room.name for room in await there.rooms()] == ["garden"]
