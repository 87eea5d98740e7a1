"""A call as one line, of whatever width there is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.text import Text

from .scene import Call

COLOURS = {
    "warming": "yellow",
    "idle": "cyan",
    "running": "green",
    "draining": "blue",
    "ended": "bright_black",
    "killed": "bold red",
    "lost": "bold red",
}
NARROW = 46
SHORTEST_BAR, LONGEST_BAR = 8, 32


@dataclass(frozen=True)
class Ruler:
    """What a call's line of talk is drawn against."""

    longest_seconds: float
    speed: float

    def heard(self, call: Call, now: float) -> float:
        """How many seconds of the recording a call has heard: by the clock, for the call itself does not say."""
        if call.result:
            return call.seconds
        if call.started_at is None or call.is_over:
            return 0.0
        return min((now - call.started_at) * self.speed, call.seconds)


def call_line(call: Call, ruler: Ruler, width: int) -> Text:
    """The call's fields, with its line of talk in the room that they leave.

    What does not fit is left out, the dispensable first.
    """
    fields = [
        Text(call.caller if width >= NARROW else call.caller[-4:]),
        _state(call),
        _start(call),
        Text(f"{call.pid or '':>7}", "bright_black"),
        _last_talk(call),
        Text(f"{call.memory.private:5.1f} MB" if call.memory else " " * 8, "bright_black"),
    ]
    while len(fields) > 2 and _length(fields) + SHORTEST_BAR > width:
        fields.pop()
    bar = _talk(call, ruler, max(SHORTEST_BAR, min(LONGEST_BAR, width - _length(fields))))
    line = Text(" ").join([*fields[:3], bar, *fields[3:]])
    line.truncate(width, pad=True)
    return line


def _length(fields: list[Text]) -> int:
    return sum(len(field) + 1 for field in fields)


def _state(call: Call) -> Text:
    outcome = "lost" if call.trouble else (call.report or {}).get("outcome", call.state)
    shown = {"succeeded": "✓ done", "lost": "✕ lost"}.get(outcome)
    shown = shown or (f"✕ {outcome}" if call.report else f"● {outcome}")
    colour = {"succeeded": "bright_black"}.get(outcome) or COLOURS.get(outcome, "yellow")
    return Text(shown.ljust(10), colour)


def _start(call: Call) -> Text:
    if call.start_ms is None:
        return Text(" " * 12)
    return Text(f"{call.launch_type} {call.start_ms:4.0f} ms", "cyan" if call.launch_type == "warm" else "yellow")


def _last_talk(call: Call) -> Text:
    text = "talk {:4.1f}–{:4.1f} s".format(*call.spurts[-1]) if call.spurts else ""
    return Text(text.ljust(16), "bright_black")


def _talk(call: Call, ruler: Ruler, cells: int) -> Text:
    """The recording from left to right: talk is thick, silence thin, what is to come dotted."""
    seconds = ruler.longest_seconds / cells
    heard = ruler.heard(call, time.monotonic())
    line = Text()
    for cell in range(cells):
        middle = (cell + 0.5) * seconds
        if any(start <= middle <= end for start, end in call.spurts):
            line.append("━", "bold green")
        elif middle <= heard:
            line.append("─", "green")
        else:
            line.append("·" if middle <= call.seconds else " ", "bright_black")
    return line
