"""A restaurant that answers its phone. Four agents share one call: each has its task and its tools, and hands over.

    greenroom start examples/livekit/restaurant_agent.py
    python examples/livekit/restaurant_agent.py start       # LiveKit's own worker runs it just as well

It is a plain LiveKit agent and imports nothing of Greenroom. README.md shows how to run it offline, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import providers
import records
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    JobContext,
    RunContext,
    ToolError,
    cli,
    function_tool,
    llm,
    room_io,
)
from livekit.agents.beta.tools import EndCallTool
from pydantic import BaseModel, Field

Dish = Literal["pizza", "salad", "ice cream", "coffee"]
PRICES: dict[Dish, int] = {"pizza": 9, "salad": 6, "ice cream": 4, "coffee": 2}
MENU = ", ".join(f"{dish} {price} dollars" for dish, price in PRICES.items())


class Table(BaseModel):
    people: int
    hour: int


class Dishes(BaseModel):
    dish: Dish
    count: int = Field(description="how many of them, 0 to take them off the order", ge=0, le=50)


@dataclass
class Visit:
    """What is known about the guest of this call. Every agent sees it, as `userdata`."""

    name: str | None = None
    phone: str | None = None
    table: Table | None = None
    order: dict[Dish, int] = field(default_factory=dict)
    placed: bool = False
    served_by: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(PRICES[dish] * count for dish, count in self.order.items())

    def as_record(self) -> dict[str, object]:
        table = self.table.model_dump() if self.table else None
        return asdict(self) | {"table": table, "total": self.total}


Call = RunContext[Visit]


@function_tool
async def set_name(context: Call, name: Annotated[str, Field(description="the guest's name")]) -> str:
    """Called when the guest gives its name."""
    context.userdata.name = name
    return f"Thank you, {name}."


@function_tool
async def set_phone(context: Call, phone: Annotated[str, Field(description="digits only")]) -> str:
    """Called when the guest gives its phone number."""
    context.userdata.phone = phone
    return "I have noted your number."


class Desk(Agent):
    """One of the restaurant's agents. It knows what was said before it came in."""

    task: str
    opening: str

    def __init__(self, history: llm.ChatContext | None = None) -> None:
        super().__init__(
            instructions=f"You work in a restaurant and talk with a guest on the phone. {self.task} "
            "Be brief and friendly. Speak plainly: no lists, no symbols.",
            chat_ctx=history,
            tools=[
                EndCallTool(
                    delete_room=False, end_instructions="Thank the guest and say goodbye.", ignore_on_enter=True
                )
            ],
        )

    async def on_enter(self) -> None:
        self.session.userdata.served_by.append(self.label)
        self.session.generate_reply(instructions=self.opening, tool_choice="none")

    def hand_over(self, desk: type[Desk]) -> Desk:
        return desk(self.chat_ctx.copy(exclude_instructions=True).truncate(max_items=12))


class Greeter(Desk):
    task = f"You greet the guest and find out what it wants: to book a table or to order food. The menu: {MENU}."
    opening = "Greet the guest and ask whether it wants to book a table or to order takeaway."

    @function_tool
    async def to_reservation(self) -> Agent:
        """Called when the guest wants to book a table."""
        return self.hand_over(Reservation)

    @function_tool
    async def to_takeaway(self) -> Agent:
        """Called when the guest wants to order food to take away."""
        return self.hand_over(Takeaway)


class Reservation(Desk):
    task = "You book a table: for how many people and at which hour. Then ask for the guest's name."
    opening = "Ask for how many people and when."

    def __init__(self, history: llm.ChatContext | None = None) -> None:
        super().__init__(history)
        self._tools += [set_name, set_phone]

    @function_tool
    async def book_table(
        self,
        context: Call,
        people: Annotated[int, Field(description="how many will come", ge=1, le=20)],
        hour: Annotated[int, Field(description="from 12 to 23", ge=12, le=23)],
    ) -> str:
        """Called when the guest has said for how many people and when."""
        context.userdata.table = Table(people=people, hour=hour)
        return f"A table for {people} at {hour - 12} is yours. What is your name?"

    @function_tool
    async def to_takeaway(self) -> Agent:
        """Called when the guest wants to order food instead, or as well."""
        return self.hand_over(Takeaway)


class Takeaway(Desk):
    task = f"You take an order of food to take away. The menu: {MENU}. Ask if there is anything else."
    opening = "Ask what the guest would like to eat and drink."

    @function_tool
    async def add_dishes(self, context: Call, dishes: list[Dishes]) -> str:
        """Called when the guest has named dishes, or other numbers of dishes that it named before."""
        order = context.userdata.order
        for wish in dishes:
            order[wish.dish] = wish.count
            if not wish.count:
                del order[wish.dish]
        return f"That is {_in_words(order)}. Anything else?"

    @function_tool
    async def to_checkout(self, context: Call) -> Agent:
        """Called when the order is complete."""
        if not context.userdata.order:
            raise ToolError("Nothing is ordered yet. Ask what the guest would like.")
        return self.hand_over(Checkout)


class Checkout(Desk):
    task = "You ask for the guest's name, tell what the order costs, and place it when the guest agrees."
    opening = "Ask for the guest's name."

    def __init__(self, history: llm.ChatContext | None = None) -> None:
        super().__init__(history)
        self._tools += [set_phone]

    @function_tool
    async def set_name(self, context: Call, name: Annotated[str, Field(description="the guest's name")]) -> str:
        """Called when the guest gives its name."""
        context.userdata.name = name
        return f"{name}, that is {context.userdata.total} dollars. Is that right?"

    @function_tool
    async def place_order(self, context: Call) -> str:
        """Called when the guest has agreed to the order and its price."""
        visit = context.userdata
        if visit.name is None:
            raise ToolError("The name is missing. Ask for it.")
        visit.placed = True
        return "It will be ready in twenty minutes."

    @function_tool
    async def to_takeaway(self) -> Agent:
        """Called when the guest wants to change the order."""
        return self.hand_over(Takeaway)


def _in_words(order: dict[Dish, int]) -> str:
    return " and ".join(f"{count} {dish}{'s' if count > 1 else ''}" for dish, count in order.items()) or "nothing"


server = AgentServer()


@server.rtc_session()
async def restaurant(context: JobContext) -> None:
    visit = Visit()

    async def keep_record() -> None:
        records.keep(context.room.name, visit.as_record())

    context.add_shutdown_callback(keep_record)
    session = AgentSession[Visit](
        userdata=visit,
        stt=providers.speech_to_text(),
        llm=providers.language_model(),
        tts=providers.text_to_speech(),
        turn_handling=providers.turn_handling(),
    )
    # A room that the caller has left is kept for a while, and this process with it, unless it is deleted.
    options = room_io.RoomOptions(delete_room_on_close=True)
    await session.start(Greeter(), room=context.room, room_options=options)


if __name__ == "__main__":
    cli.run_app(server)
