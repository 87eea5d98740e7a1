"""The provider that the LiveKit examples are run with offline speaks OpenAI's API: OpenAI's own client reads it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from openai.types.realtime import RealtimeServerEvent
from programs import Program
from pydantic import TypeAdapter
from support import DEADLINE

from examples.livekit.offline.chat import moment_of
from examples.livekit.offline.conversation import Conversation, ItemError
from examples.livekit.offline.dialogue import Call, Moment, Say, answer

RATE = 24000
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


@asynccontextmanager
async def provider() -> AsyncIterator[openai.AsyncOpenAI]:
    command = [sys.executable, "-m", "examples.livekit.offline", "--port", "0", "--voice", "en-us"]
    async with Program(*command, environment={}) as program:
        url = (await program.says(r"offline provider: (\S+)"))[1]
        async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
            yield client


# The script


def said(text: str, *tools: str) -> Say | Call:
    return answer(Moment(tools=frozenset(tools), said=text))


def test_script_calls_the_tool_that_is_there() -> None:
    assert said("that is all", "to_checkout", "end_call") == Call("to_checkout", {})
    assert said("that is all", "end_call") == Call("end_call", {})
    assert said("that is all") == Say("Sorry, I did not understand.")
    assert said("tell me a joke", "end_call")[0].startswith("A waiter")


def test_script_reads_what_was_said() -> None:
    order = {"dishes": [{"dish": "pizza", "count": 2}, {"dish": "ice cream", "count": 1}]}
    assert said("two pizzas and an ice cream please", "add_dishes") == Call("add_dishes", order)
    table = Call("book_table", {"people": 4, "hour": 19})
    assert said("a table for four people at seven", "book_table") == table
    assert said("my number is five zero nine", "set_phone") == Call("set_phone", {"phone": "509"})


def test_script_speaks_results_and_opens_the_call() -> None:
    assert answer(Moment(result="Thank you.", result_of="set_name")) == Say("Thank you.")
    assert answer(Moment(result="Thank the guest.", result_of="end_call")) == Say("Goodbye.")
    opening = Moment(tools=frozenset({"place_order", "to_takeaway"}), may_call=False, said="that is all")
    assert answer(opening) == Say("May I have your name?")


def test_moment_is_the_last_thing_that_happened() -> None:
    call = {"id": "c1", "function": {"name": "set_name", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "my name is anna"}]},
    ]
    assert moment_of({"messages": messages}).said == "my name is anna"
    messages += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "Yes"}]
    moment = moment_of({"messages": messages, "tool_choice": "none"})
    assert (moment.said, moment.result, moment.result_of, moment.may_call) == (None, "Yes", "set_name", False)


def test_items_are_where_the_client_puts_them() -> None:
    conversation = Conversation()
    assert conversation.insert({"id": "b", "type": "message"}) is None
    assert conversation.insert({"id": "c", "type": "message"}, "b") == "b"
    assert conversation.insert({"id": "a", "type": "message"}, "root") is None
    assert conversation.insert({"id": "d", "type": "message"}) == "c"
    with pytest.raises(ItemError, match="already exists"):
        conversation.insert({"id": "a", "type": "message"})
    conversation.delete("b")
    with pytest.raises(ItemError, match="No item with item_id b"):
        conversation.get("b")


# The API


SENTENCES = (
    "i would like to book a table",
    "i would rather order some food",
    "two pizzas and a coffee please",
    "three salads and an ice cream",
    "a table for six people at nine",
    "my name is robert",
    "my number is five five five one two three",
    "yes that is right",
    "that is all",
    "goodbye",
    "tell me a joke",
)


async def test_what_is_spoken_is_understood() -> None:
    async with provider() as client:
        for sentence in SENTENCES:
            speech = await client.audio.speech.create(input=sentence, model="m", voice="v", response_format="wav")
            heard = await client.audio.transcriptions.create(file=("a.wav", speech.content, "audio/wav"), model="m")
            assert heard.text == sentence
        with pytest.raises(openai.BadRequestError, match="Only WAV files"):
            await client.audio.transcriptions.create(file=("a.wav", b"no sound", "audio/wav"), model="m")


async def test_speech_comes_as_events_and_as_bytes() -> None:
    async with provider() as client:
        asked: dict[str, Any] = {"input": "goodbye", "model": "m", "voice": "v", "response_format": "pcm"}
        whole = (await client.audio.speech.create(**asked)).content
        assert len(whole) > RATE // 2
        async with client.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as stream:
            events = [json.loads(line[6:]) async for line in stream.iter_lines() if line.startswith("data: ")]
        assert [event["type"] for event in events[-2:]] == ["speech.audio.delta", "speech.audio.done"]
        spoken_again = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert abs(len(spoken_again) - len(whole)) < RATE / 10  # the voice is not the same to the sample


async def test_chat_streams_words_and_calls() -> None:
    tool = {"type": "function", "function": {"name": "set_name", "parameters": {}}}
    async with provider() as client:
        asked: dict[str, Any] = {"model": "m", "tools": [tool]}
        joke = [{"role": "user", "content": "tell me a joke"}]
        stream = await client.chat.completions.create(messages=joke, stream=True, **asked)
        words = [choice.delta.content async for chunk in stream for choice in chunk.choices if choice.delta.content]
        assert len(words) > 10
        assert "".join(words).endswith("nobody laughs at all.")

        named = [{"role": "user", "content": "my name is anna"}]
        stream = await client.chat.completions.create(messages=named, stream=True, **asked)
        choices = [choice async for chunk in stream for choice in chunk.choices]
        functions = [call.function for choice in choices for call in choice.delta.tool_calls or ()]
        assert functions[0].name == "set_name"
        assert json.loads("".join(function.arguments or "" for function in functions)) == {"name": "Anna"}
        assert choices[-1].finish_reason == "tool_calls"

        whole = await client.chat.completions.create(messages=named, **asked)
        assert whole.choices[0].message.tool_calls[0].function.name == "set_name"
        with pytest.raises(openai.BadRequestError, match="not a chat completion"):
            await client.chat.completions.create(messages=[{"no": "role"}], model="m")


async def test_a_key_is_asked_for() -> None:
    async with provider() as client, aiohttp.ClientSession() as session:
        async with session.get(f"{client.base_url}models") as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "invalid_api_key"
        assert [model.id async for model in client.models.list()] == ["offline"]


# The realtime model


class Line:
    """A realtime session. Every event must be one that OpenAI's client knows, with all that it must have."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.seen: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_json({"type": kind, "event_id": f"mine-{kind}", **fields})

    async def hear(self, pcm: bytes) -> None:
        """Half a second of silence, what is said, and a second of silence: in pieces, faster than it is talked."""
        pcm = bytes(RATE) + pcm + bytes(2 * RATE)
        for at in range(0, len(pcm), RATE // 5):
            audio = base64.b64encode(pcm[at : at + RATE // 5]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            while True:
                event: dict[str, Any] = await self._socket.receive_json()
                SERVER_EVENT.validate_python(event)
                self.seen.append(event)
                if event["type"] == kind:
                    return event

    def kinds(self) -> list[str]:
        """What has come since the last time; the many deltas of one kind once."""
        kinds = [event["type"] for event in self.seen]
        self.seen.clear()
        return [kind for at, kind in enumerate(kinds) if not at or kind != kinds[at - 1]]


@asynccontextmanager
async def line(client: openai.AsyncOpenAI, *tools: str) -> AsyncIterator[Line]:
    headers = {"Authorization": "Bearer any"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(f"{client.base_url}realtime?model=m") as socket,
    ):
        connected = Line(socket)
        await connected.until("session.created")
        offered = [{"type": "function", "name": tool, "parameters": {}} for tool in tools]
        heard = {"transcription": {"model": "m"}}
        await connected.send(
            "session.update", session={"type": "realtime", "tools": offered, "audio": {"input": heard}}
        )
        updated = await connected.until("session.updated")
        assert updated["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        connected.kinds()
        yield connected


async def spoken(client: openai.AsyncOpenAI, text: str) -> bytes:
    return (await client.audio.speech.create(input=text, model="m", voice="v", response_format="pcm")).content


SPOKEN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
HEARD = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.input_audio_transcription.completed",
]


async def test_realtime_turn_calls_a_tool_and_speaks_its_result() -> None:
    async with provider() as client, line(client, "set_name") as session:
        await session.hear(await spoken(client, "my name is anna"))
        transcript = await session.until("conversation.item.input_audio_transcription.completed")
        assert transcript["transcript"] == "my name is anna"
        assert session.kinds() == HEARD
        arguments = await session.until("response.function_call_arguments.done")
        assert (arguments["name"], json.loads(arguments["arguments"])) == ("set_name", {"name": "Anna"})
        assert (await session.until("response.done"))["response"]["status"] == "completed"
        session.kinds()
        result = {"type": "function_call_output", "call_id": arguments["call_id"], "output": "Thank you."}
        await session.send("conversation.item.create", item=result)
        await session.send("response.create", response={"metadata": {"mine": "yes"}})
        done = await session.until("response.done")
        assert done["response"]["metadata"] == {"mine": "yes"}
        assert done["response"]["output"][0]["content"][0]["transcript"] == "Thank you."
        assert session.kinds() == ["conversation.item.added", "conversation.item.done", *SPOKEN]


async def test_realtime_answer_is_cut_short_by_the_caller() -> None:
    async with provider() as client, line(client) as session:
        request = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "tell me a joke"}]}
        await session.send("conversation.item.create", item=request)
        await session.send("response.create")
        await session.until("response.output_audio.delta")
        await session.send("response.create")
        refused = (await session.until("error"))["error"]
        assert refused["code"] == "conversation_already_has_active_response"
        assert refused["event_id"] == "mine-response.create"
        await session.hear(await spoken(client, "goodbye"))
        done = (await session.until("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
        assert done["output"][0]["status"] == "incomplete"
        item = done["output"][0]["id"]
        await session.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
        await session.until("conversation.item.truncated")


async def test_realtime_refuses_what_it_cannot_do_and_goes_on() -> None:
    async with provider() as client, line(client) as session:
        for kind, fields, code in (
            ("no.such.event", {}, "invalid_value"),
            ("input_audio_buffer.append", {}, "invalid_value"),
            ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty"),
            ("response.cancel", {}, "response_cancel_not_active"),
            ("conversation.item.delete", {"item_id": "item_none"}, "item_not_found"),
        ):
            await session.send(kind, **fields)
            assert (await session.until("error"))["error"]["code"] == code
        await session.send("response.create")
        assert (await session.until("response.done"))["response"]["status"] == "completed"


async def test_realtime_client_that_takes_turns_itself() -> None:
    async with provider() as client, line(client, "end_call") as session:
        heard = {"turn_detection": None}
        await session.send("session.update", session={"type": "realtime", "audio": {"input": heard}})
        await session.hear(await spoken(client, "goodbye"))
        await session.send("input_audio_buffer.commit")
        transcript = await session.until("conversation.item.input_audio_transcription.completed")
        assert transcript["transcript"] == "goodbye"
        assert "input_audio_buffer.speech_started" not in session.kinds()
        await session.send("response.create")
        assert (await session.until("response.function_call_arguments.done"))["name"] == "end_call"
