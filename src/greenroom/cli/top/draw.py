"""Drawing of workers as lines of text that fit into the terminal. Pure: time and size are arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from ..text import clock, one_line
from .figures import shares
from .head import first_line, head_lines
from .listing import Found, JobRef, Listing
from .sessions import SessionTable
from .watched import Watched

__all__ = ["Scene", "draw", "fitted", "heading"]

_STATES = {
    "requested": "yellow",
    "forked": "yellow",
    "warming": "yellow",
    "idle": "green",
    "reserved": "cyan",
    "resident": "cyan",
    "claimed": "blue",
    "running": "blue",
    "draining": "magenta",
    "killing": "red",
    "exited": "bright_black",
    "reaped": "bright_black",
}
_MOST_LIGHT_LINES = 3
_LEGEND = len(" ● = 1000")
_FEWEST_SESSIONS = 4
_FRAME = 5
"""Lines that are always there, besides the first ones: three headings, the sessions' columns, and the last line."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a drawing depends on, except what it shows."""

    now: float
    """Seconds since the epoch."""
    width: int
    height: int | None
    """Lines of the terminal; ``None`` for as many lines as needed."""
    selected: JobRef | None = None
    last_line: str | None = None
    typed: str | None = None
    """Words that are being typed in the last line; ``None`` if the user does not type."""
    found: Found | None = None
    """Answer to the search that filters the lists; ``None`` without a filter."""


def draw(watched: Sequence[Watched], scene: Scene) -> list[Text]:
    """Return no more lines than there is room for. Sessions have priority."""
    listing, names = Listing.of(watched, scene.found), [worker.name for worker in watched]
    troubles = list(_troubles(listing, names))
    states = _states(watched)
    most = None if scene.height is None else max((scene.height - _FRAME) // 3, 1)
    lines = head_lines(watched, scene.now, most)
    lights, rows, most_troubles = _rooms(len(lines), states.total(), len(troubles), scene)
    table = SessionTable(listing, names, scene.now, scene.width, rows, scene.selected)
    lines += [heading(_title_of_processes(states), scene.width), *_lights(states, scene.width, lights)]
    lines += [heading(table.title(scene.found), scene.width), *table.lines()]
    if scene.found is not None and not listing.refs:
        lines.append(Text("no session matches"))
    if most_troubles > 0:
        lines += [heading(_title_of_troubles(troubles, scene.found), scene.width)]
        lines += troubles[:most_troubles]
    return fitted(lines, scene)


def fitted(lines: list[Text], scene: Scene) -> list[Text]:
    """Return as many lines as the terminal has, as long as it is wide, with the last line at the end."""
    if scene.height is not None:
        lines = lines[: max(scene.height - 1, 0)]
        lines += [Text()] * (scene.height - 1 - len(lines))
    last_line = _last_line(scene)
    if last_line is not None:
        lines.append(Text(last_line, "bold"))
    for line in lines:
        line.truncate(scene.width, overflow="ellipsis")
    return lines


def _last_line(scene: Scene) -> str | None:
    if scene.typed is None:
        return None if scene.last_line is None else one_line(scene.last_line)
    line = f"/{one_line(scene.typed)}_"
    while cell_len(line) > scene.width:  # the end is where the user types
        line = line[1:]
    return line


def _rooms(head: int, processes: int, troubles: int, scene: Scene) -> tuple[int, int | None, int]:
    """Return the numbers of lines for the processes' lights, for sessions, and for troubles.

    ``head`` is the number of the first lines.
    """
    wanted = min(-(-processes // max(scene.width, 1)), _MOST_LIGHT_LINES)
    if scene.height is None:
        return wanted, None, max(troubles, 1)
    room = scene.height - head - _FRAME
    lights = min(wanted, max(room - _FEWEST_SESSIONS - 1, 0))
    below = min(troubles, max((room - lights) // 3, 0)) or (1 if room > _FEWEST_SESSIONS else 0)
    return lights, max(room - lights - min(below, troubles), 1), below


# --- processes, and problems ---------------------------------------------------------------------


def _states(watched: Sequence[Watched]) -> Counter[str]:
    """Return the number of processes in each state, on the workers that answer. If none does, count those of before."""
    shown = [worker for worker in watched if worker.loss is None] or watched
    return sum((worker.picture.states() for worker in shown), Counter[str]())


def _title_of_processes(counts: Counter[str]) -> Text:
    title = Text(f"processes {counts.total()}")
    for state, style in _STATES.items():
        if counts[state]:
            title.append("  ").append(f"{state} {counts[state]}", style)
    return title


def _lights(counts: Counter[str], width: int, lines: int) -> Iterator[Text]:
    """Yield lines of lights. A light stands for one process, or for several if there is no room for all."""
    states = [state for state in _STATES if counts[state]]
    if not states or lines == 0:
        return
    room = width * lines
    if counts.total() > room:
        room = max(room - _LEGEND, len(states))
    marks, each = shares([counts[state] for state in states], room)
    lights = Text.assemble(*(("●" * many, _STATES[state]) for state, many in zip(states, marks, strict=True)))
    if each > 1:
        lights.append(f" ● = {each}", "bright_black")
    for start in range(0, min(len(lights), width * lines), width):
        yield lights[start : start + width]


def _title_of_troubles(troubles: list[Text], found: Found | None) -> Text:
    title = "problems" if troubles else "no problems"
    return Text(title if found is None else f"{title} of these sessions")


def _troubles(listing: Listing, names: Sequence[str]) -> Iterator[Text]:
    for trouble in listing.troubles:
        pid = f" (pid {trouble['pid']})" if trouble.get("pid") else ""
        worker = f"  {one_line(names[trouble['worker']])}" if len(names) > 1 else ""
        yield Text.assemble(
            (clock(trouble["at"]), "bright_black"),
            f"{worker}  {one_line(trouble['who'])}{pid}  ",
            (one_line(trouble["what"]), "red"),
            f"  {first_line(trouble['detail'])}",
        )


def heading(title: Text, width: int) -> Text:
    line = Text.assemble(("── ", "bright_black"), title, " ")
    return line.append("─" * max(width - line.cell_len, 0), "bright_black")
