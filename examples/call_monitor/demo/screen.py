"""The demo on a terminal: processes as lights, calls as lines of talk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from .options import DemoOptions
from .rows import COLOURS, Ruler, call_line
from .scene import Call, Scene
from .words import STARTING, ending, suggestion

NARROWEST_COLUMN = 38
FEWEST_LINES = 4
REMARKS = 3


class Screen:
    """A live view, redrawn in place; gone when it is closed."""

    def __init__(self, console: Console, options: DemoOptions) -> None:
        self._console = console
        self._ruler = Ruler(options.longest_seconds, options.speed)
        self._began = time.monotonic()
        self._remarks: deque[str] = deque(maxlen=REMARKS)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        self._live.start()
        self._live.update(Text(STARTING + " …"), refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        self._live.update(self._draw(scene), refresh=True)

    def note(self, remark: str) -> None:
        self._remarks.append(f"{self._seconds:5.1f} s  {remark}")

    def call_changed(self, call: Call) -> None:
        if call.fate not in (None, "served"):
            self.note(ending(call))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _draw(self, scene: Scene) -> RenderableType:
        width, height = self._console.size
        top: list[Text | Rule] = [_header(scene, self._seconds), Rule("processes", style="bright_black")]
        top += [*_lights(scene, width), Rule("calls", style="bright_black")]
        bottom = [_one_line(Text(remark, "yellow"), width) for remark in self._remarks]
        bottom.append(Text(suggestion(scene), "bold"))
        # The calls come first: where the terminal is low, all else but the first line makes room for them.
        while (room := height - 1 - self._height(top, width) - self._height(bottom, width)) < FEWEST_LINES:
            if not bottom and len(top) == 1:
                break
            (bottom or top).pop(0 if bottom else -1)
        return Group(*top, *self._call_lines(scene.calls, width, max(1, room)), *bottom)

    def _height(self, parts: Iterable[Text | Rule], width: int) -> int:
        return sum(len(part.wrap(self._console, width)) if isinstance(part, Text) else 1 for part in parts)

    def _call_lines(self, calls: list[Call], width: int, room: int) -> Iterable[Text]:
        """As many columns as it takes to show all calls in so many lines, if there is the width for them."""
        columns = min(-(-len(calls) // room), max(1, (width + 2) // (NARROWEST_COLUMN + 2)))
        each = (width - 2 * (columns - 1)) // columns
        lines = min(room, -(-len(calls) // columns))
        for line in range(lines):
            shown = calls[line : lines * columns : lines]
            yield Text("  ").join(call_line(call, self._ruler, each) for call in shown)


def _header(scene: Scene, seconds: float) -> Text:
    pool = scene.pool
    over = sum(call.is_over for call in scene.calls)
    return Text.assemble(
        ("Greenroom", "bold green"),
        f"  {seconds:4.1f} s   calls {over} of {len(scene.calls)} over   idle target {pool['idle_target']}"
        f"   jobs {pool['jobs']}   waiting {pool['waiting']}   zygote {pool['zygote_pid'] or 'restarting'}",
    )


def _lights(scene: Scene, width: int) -> Iterable[Text]:
    """One light for each process that is there or was killed; those that ended by themselves are counted."""
    shown = [light for light in scene.lights.values() if light.state != "ended"]
    cells = [Text(f"{_lamp(light.state)} {light.pid:<7}", COLOURS[light.state]) for light in shown]
    each_line = max(1, width // 10)
    for start in range(0, len(cells), each_line):
        yield Text(" ").join(cells[start : start + each_line])
    states = ("warming", "idle", "running", "draining", "killed", "ended")
    yield Text("  ").join(Text(f"{_lamp(state)} {state} {scene.count(state)}", COLOURS[state]) for state in states)


def _lamp(state: str) -> str:
    return {"killed": "✕", "ended": "✓", "warming": "○"}.get(state, "●")


def _one_line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
