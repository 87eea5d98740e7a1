"""Drawing of a picture as lines of text that fit into the terminal. Pure: time and size are arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ..text import clock, one_line
from .figures import shares
from .picture import Picture
from .sessions import SessionTable

__all__ = ["Scene", "draw"]

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
_FRAME = 8
"""Lines that are always there: three of figures, three headings, the names of the sessions' columns, the last line."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a drawing depends on, except the picture."""

    now: float
    """Seconds since the epoch."""
    width: int
    height: int | None
    """Lines of the terminal; ``None`` for as many lines as needed."""
    is_lost: bool = False
    selected: str | None = None
    last_line: str | None = None


def draw(picture: Picture, scene: Scene) -> list[Text]:
    """Return no more lines than there is room for. Sessions have priority."""
    troubles = list(_troubles(picture))
    lights, rows, most_troubles = _rooms(len(picture.processes), len(troubles), scene)
    table = SessionTable(picture, scene.now, scene.width, rows, scene.selected)
    lines = [*_figures(picture, scene)]
    lines += [_heading(_states(picture), scene.width), *_lights(picture, scene.width, lights)]
    lines += [_heading(table.title, scene.width), *table.lines()]
    if most_troubles > 0:
        lines += [_heading(Text("problems" if troubles else "no problems"), scene.width)]
        lines += troubles[:most_troubles]
    if scene.height is not None:
        lines = lines[: max(scene.height - 1, 0)]
        lines += [Text()] * (scene.height - 1 - len(lines))
    if scene.last_line is not None:
        lines.append(Text(one_line(scene.last_line), "bold"))
    for line in lines:
        line.truncate(scene.width, overflow="ellipsis")
    return lines


def _rooms(processes: int, troubles: int, scene: Scene) -> tuple[int, int | None, int]:
    """Return the numbers of lines for the processes' lights, for sessions, and for troubles."""
    wanted = min(-(-processes // max(scene.width, 1)), _MOST_LIGHT_LINES)
    if scene.height is None:
        return wanted, None, max(troubles, 1)
    room = scene.height - _FRAME
    lights = min(wanted, max(room - _FEWEST_SESSIONS - 1, 0))
    below = min(troubles, max((room - lights) // 3, 0)) or (1 if room > _FEWEST_SESSIONS else 0)
    return lights, max(room - lights - min(below, troubles), 1), below


# --- figures -------------------------------------------------------------------------------------


def _figures(picture: Picture, scene: Scene) -> Iterator[Text]:
    # The verdict comes before the app, since the app's path may be long.
    yield Text.assemble(("Greenroom  ", "bold green"), _verdict(picture, scene), f"   {one_line(picture.app)}")
    yield Text("   ".join(_levels(picture)))
    yield Text.assemble(_starts(picture.start_ms()), "   ", _turned_down(picture, scene.now))


def _verdict(picture: Picture, scene: Scene) -> tuple[str, str]:
    if scene.is_lost:
        return "no connection, trying again; the figures are old", "bold red"
    if picture.problem is None:
        return "ready", "green"
    cause = (picture.stats or {}).get("breaker_cause")
    return one_line(f"not ready: {picture.problem}{f' ({_first_line(cause)})' if cause else ''}"), "bold red"


def _levels(picture: Picture) -> Iterator[str]:
    stats = picture.stats
    if stats is None:
        return
    yield f"generation {_known(stats['generation'])}"
    yield f"zygote {_known(stats['zygote_pid'])}"
    yield f"jobs {stats['jobs']}/{picture.capacity}"
    yield f"idle {stats['idle']}/{stats['idle_target']}"
    yield f"warming {stats['warming']}"
    if stats["waiting"]:
        yield f"waiting {stats['waiting']}"


def _known(value: Any) -> str:
    return "-" if value is None else str(value)


def _starts(start: dict[str, Any]) -> str:
    if not start["count"]:
        return "no starts yet"
    return f"start p50 {start['p50']:.1f} ms, p99 {start['p99']:.1f} ms ({start['count']} starts)"


def _turned_down(picture: Picture, now: float) -> tuple[str, str]:
    counts = picture.turned_down(now)
    if not counts:
        return "no rejections in the last minute", ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return one_line(f"rejected in the last minute: {reasons}"), "yellow"


# --- processes, and problems ---------------------------------------------------------------------


def _states(picture: Picture) -> Text:
    counts = picture.states()
    title = Text(f"processes {len(picture.processes)}")
    for state, style in _STATES.items():
        if counts[state]:
            title.append("  ").append(f"{state} {counts[state]}", style)
    return title


def _lights(picture: Picture, width: int, lines: int) -> Iterator[Text]:
    """Yield lines of lights. A light stands for one process, or for several if there is no room for all."""
    counts = picture.states()
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


def _troubles(picture: Picture) -> Iterator[Text]:
    for trouble in picture.troubles():
        pid = f" (pid {trouble['pid']})" if trouble.get("pid") else ""
        yield Text.assemble(
            (clock(trouble["at"]), "bright_black"),
            f"  {one_line(trouble['who'])}{pid}  ",
            (one_line(trouble["what"]), "red"),
            f"  {_first_line(trouble['detail'])}",
        )


def _first_line(text: str) -> str:
    return one_line(text.strip().partition("\n")[0])


def _heading(title: Text, width: int) -> Text:
    line = Text.assemble(("── ", "bright_black"), title, " ")
    return line.append("─" * max(width - line.cell_len, 0), "bright_black")
