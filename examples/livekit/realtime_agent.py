"""A restaurant's answering service, speech to speech: one realtime model hears, thinks and speaks.

    greenroom start examples/livekit/realtime_agent.py
    python examples/livekit/realtime_agent.py start         # LiveKit's own worker runs it just as well

It is a plain LiveKit agent and imports nothing of Greenroom. README.md shows how to run it offline, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import providers
import records
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, cli, function_tool, room_io
from livekit.agents.beta.tools import EndCallTool


@dataclass
class Message:
    """What the caller leaves."""

    name: str | None = None
    phone: str | None = None


class AnsweringService(Agent):
    def __init__(self) -> None:
        super().__init__(
            instructions="You answer the phone of a restaurant that is closed. Take the caller's name and phone "
            "number, so that somebody can call back. Be brief and friendly.",
            tools=[
                EndCallTool(
                    delete_room=False, end_instructions="Thank the caller and say goodbye.", ignore_on_enter=True
                )
            ],
        )

    async def on_enter(self) -> None:
        self.session.generate_reply(
            instructions="Say that the restaurant is closed and ask for the caller's name.", tool_choice="none"
        )

    @function_tool
    async def set_name(self, context: RunContext[Message], name: str) -> str:
        """Called when the caller gives its name."""
        context.userdata.name = name
        return f"Thank you, {name}. What is your number?"

    @function_tool
    async def set_phone(self, context: RunContext[Message], phone: str) -> str:
        """Called when the caller gives its phone number: digits only."""
        context.userdata.phone = phone
        return "We will call you back."

    @function_tool
    async def opening_hours(self) -> str:
        """Called when the caller asks when the restaurant is open."""
        return "We open at six in the evening."


server = AgentServer()


@server.rtc_session()
async def answering_service(context: JobContext) -> None:
    message = Message()

    async def keep_record() -> None:
        records.keep(context.room.name, asdict(message))

    context.add_shutdown_callback(keep_record)
    session = AgentSession[Message](userdata=message, llm=providers.realtime_model())
    # A room that the caller has left is kept for a while, and this process with it, unless it is deleted.
    await session.start(
        AnsweringService(), room=context.room, room_options=room_io.RoomOptions(delete_room_on_close=True)
    )


if __name__ == "__main__":
    cli.run_app(server)
