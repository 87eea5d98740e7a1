"""The LiveKit examples, offline and end to end: a real server, real rooms, callers that speak and are understood.

Nothing is replaced in the agents. They talk to `examples/livekit/offline` as they would to OpenAI; what the caller
says goes as sound through the room to the speech recognition and back, and the tools that the agents call leave their
traces in the record of the call.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from programs import Program
from rooms.livekit_server import LiveKitServer
from support import DEADLINE

pytestmark = [pytest.mark.more, pytest.mark.alone]

PYTHON = sys.executable
EXAMPLES = Path("examples", "livekit")
CALL_LIMIT = 90.0  # seconds; a call of these takes about half a minute, most of it talk
IS_REGISTERED = "registered (worker|as)"

WORKERS = {
    "greenroom": [Path(PYTHON).with_name("greenroom"), "start", "{agent}", "--port", "0"],
    # In its own `start` mode it takes no job on a machine whose CPUs are busy, as a test machine's are.
    "livekit": [PYTHON, "{agent}", "dev", "--no-reload"],
}


class Phone:
    """Places calls to an example that runs under a worker."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def call(self, room: str, *sentences: str) -> list[dict[str, Any]]:
        """One call, from its beginning until the agent has hung up; returns what the caller said and heard."""
        command = [PYTHON, "-m", "examples.livekit.offline.call", "--room", room, "--stay", "--limit", str(CALL_LIMIT)]
        async with Program(*command, *sentences, environment=self._environment) as caller:
            code = await caller.ends(CALL_LIMIT + 20)
            events = [json.loads(line) for line in caller.lines if line.startswith("{")]
            print(*caller.lines, sep="\n")
            assert code == 0, events
            return events

    async def record(self, room: str) -> dict[str, Any]:
        """What the agent has left of a call."""
        path = Path(self._environment["RECORDS"])
        async with asyncio.timeout(DEADLINE):
            while True:
                lines = path.read_text().splitlines() if path.exists() else []
                for record in map(json.loads, lines):
                    if record["room"] == room:
                        return dict(record)
                await asyncio.sleep(0.05)


@pytest.fixture
def worker_kind() -> str:
    return "greenroom"


@pytest.fixture
def telephone(
    worker_kind: str, livekit: LiveKitServer, tmp_path: Path
) -> Callable[[str, Callable[[Phone], Awaitable[None]]], None]:
    """Runs a test's calls against an example, with the offline provider, under a kind of worker."""

    async def run(agent: str, calls: Callable[[Phone], Awaitable[None]]) -> None:
        environment = {**livekit.environment, "RECORDS": str(tmp_path / "records.jsonl"), "OPENAI_API_KEY": "offline"}
        provider = [PYTHON, "-m", "examples.livekit.offline", "--port", "0", "--speed", "1.2"]
        async with Program(*provider, environment={}) as offline:
            environment["OPENAI_BASE_URL"] = (await offline.says(r"offline provider: (\S+)"))[1]
            command = [str(part).format(agent=EXAMPLES / agent) for part in WORKERS[worker_kind]]
            async with Program(*command, environment=environment) as worker:
                await worker.says(IS_REGISTERED)
                await calls(Phone(environment))

    return lambda agent, calls: asyncio.run(run(agent, calls))


def texts(events: list[dict[str, Any]], event: str) -> list[str]:
    return [one["text"] for one in events if one["event"] == event]


ORDER = (
    "i would like to order some food",
    "two pizzas and a coffee please",
    "that is all",
    "my name is anna",
    "yes that is right",
    "goodbye",
)
CHANGE_OF_MIND = (
    "i would like to book a table",
    "a table for four people at seven",
    "my name is peter",
    "i would rather order some food",
    "goodbye",
)


def test_two_guests_are_served_at_once_each_from_desk_to_desk(telephone: Any) -> None:
    async def calls(phone: Phone) -> None:
        anna, peter = await asyncio.gather(phone.call("anna", *ORDER), phone.call("peter", *CHANGE_OF_MIND))
        assert texts(anna, "understood") == list(ORDER)
        assert texts(anna, "heard")[:6] == [
            "Good evening. A table, or takeaway?",
            "What would you like?",
            "That is 2 pizzas and 1 coffee. Anything else?",
            "May I have your name?",
            "Anna, that is 20 dollars. Is that right?",
            "It will be ready in twenty minutes.",
        ]
        assert texts(peter, "understood") == list(CHANGE_OF_MIND)
        assert texts(peter, "heard")[2:5] == [
            "A table for 4 at 7 is yours. What is your name?",
            "Thank you, Peter.",
            "What would you like?",
        ]
        for events in (anna, peter):
            assert [event["event"] for event in events[-2:]] == ["hung up by the agent", "left"]
            assert events[-1]["heard_seconds"] > 3, "the agent was hardly audible"

        assert await phone.record("anna") == {
            "room": "anna",
            "name": "Anna",
            "phone": None,
            "table": None,
            "order": {"pizza": 2, "coffee": 1},
            "total": 20,
            "placed": True,
            "served_by": ["greeter", "takeaway", "checkout"],
        }
        peters = await phone.record("peter")
        assert (peters["name"], peters["table"]) == ("Peter", {"people": 4, "hour": 19})
        assert (peters["served_by"], peters["order"]) == (["greeter", "reservation", "takeaway"], {})

    telephone("restaurant_agent.py", calls)


def test_a_caller_leaves_a_message_with_the_realtime_model_and_interrupts_it(telephone: Any) -> None:
    sentences = ("my name is susan", "tell me a joke", "!my number is five five five one two three", "goodbye")

    async def calls(phone: Phone) -> None:
        susan = await phone.call("susan", *sentences)
        assert texts(susan, "understood") == [sentence.removeprefix("!") for sentence in sentences]
        opening, thanks, joke, *rest = texts(susan, "heard")
        assert opening == "The restaurant is closed. May I have your name?"
        assert thanks == "Thank you, Susan. What is your number?"
        assert joke.startswith("A waiter")
        assert "laughs at all" not in joke, "it was not interrupted"
        assert rest[0] == "We will call you back."  # the end of a goodbye may be cut off with the room
        assert susan[-2]["event"] == "hung up by the agent"
        assert await phone.record("susan") == {"room": "susan", "name": "Susan", "phone": "555123"}

    telephone("realtime_agent.py", calls)
