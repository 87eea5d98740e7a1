"""The closing account: every call's exit report, how fast they started, what they cost, what to try next."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .director import Ending
from .options import DemoOptions
from .rows import COLOURS
from .scene import Call
from .words import ending as how_it_ended

COMMAND = ".venv/bin/python -m examples.call_monitor"
DISPENSABLE = ("peak", "PSS", "late", "cpu", "quiet", "talk", "reason", "private")
"""Columns that are left out where there is no room, in this order."""


def print_closing(console: Console, options: DemoOptions, ending: Ending) -> None:
    """Print it, with as many columns as there is room for."""
    calls = ending.scene.calls
    console.print(_reports(calls, console.width))
    console.print(_legend(), style="bright_black")
    console.print(_latencies(calls))
    for line in (*_memory(ending), *_remarkable(calls), *_balance(ending), *_next(options)):
        console.print(line, highlight=False, markup=False)


def _reports(calls: list[Call], width: int) -> Table:
    rows = [_fields(call) for call in calls]
    titles = list(rows[0])
    wide = {title: max(len(title), *(len(row[title]) for row in rows)) + 1 for title in titles}
    for title in DISPENSABLE:
        if sum(wide[kept] for kept in titles) > width:
            titles.remove(title)
    table = _table(gap=1 if sum(wide[kept] + 1 for kept in titles) <= width else 0)
    for title in titles:
        table.add_column(title, justify="left" if title in ("call", "outcome", "reason") else "right", no_wrap=True)
    for call, row in zip(calls, rows, strict=True):
        table.add_row(*(row[title] for title in titles), style="" if call.fate == "served" else COLOURS["killed"])
    return table


def _fields(call: Call) -> dict[str, str]:
    report, result, memory = call.report or {}, call.result, call.memory
    return {
        "call": call.caller,
        "start ms": "" if call.start_ms is None else f"{call.launch_type} {call.start_ms:4.0f}",
        "outcome": report.get("outcome") or ("lost" if call.trouble else "unfinished"),
        "reason": report.get("reason", "–"),
        "talk": _number(result.get("talk_seconds")),
        "quiet": _number(result.get("silence_seconds")),
        "late": _number(result.get("late_frames"), 0),
        "cpu": _number(report.get("cpu_seconds"), 2),
        "peak": _number(report.get("peak_memory_mb")),
        "PSS": _number(memory and memory.proportional),
        "private": _number(memory and memory.private),
    }


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _legend() -> str:
    return (
        "talk, quiet, cpu: seconds. late: frames that came after the next was due.\n"
        "Memory in MB: peak is resident, shared pages included; PSS and private as measured in the call.\n"
    )


def _latencies(calls: Iterable[Call]) -> Table:
    table = _table()
    for title in ("start latency", "calls", "p50 ms", "p99 ms", "slowest ms"):
        table.add_column(title, justify="left" if title == "start latency" else "right")
    kinds = {"warm, from an idle process": "warm", "cold, forked on demand": "cold", "all": None}
    for title, kind in kinds.items():
        times = sorted(
            call.start_ms for call in calls if call.start_ms is not None and kind in (None, call.launch_type)
        )
        figures = (_percentile(times, 50), _percentile(times, 99), times[-1] if times else None)
        table.add_row(title, str(len(times)), *(_number(figure) for figure in figures))
    return table


def _percentile(times: list[float], percent: float) -> float | None:
    """The smallest of the times that at least so many per cent are not above."""
    return times[max(0, math.ceil(len(times) * percent / 100) - 1)] if times else None


def _table(gap: int = 1) -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))


def _memory(ending: Ending) -> Iterable[str]:
    measured = [call.memory for call in ending.scene.calls if call.memory]
    if measured:
        private = statistics.median(memory.private for memory in measured)
        proportional = statistics.median(memory.proportional for memory in measured)
        text = f"Memory per call (median): {private:.1f} MB private, {proportional:.1f} MB PSS."
        if image := ending.scene.image:
            text += f" Python, the runtime and the model are {image.resident:.0f} MB, loaded once and shared by all."
        yield "\n" + text


def _remarkable(calls: Iterable[Call]) -> Iterable[Text]:
    for call in calls:
        if call.fate in ("killed from outside", "lost"):
            yield Text(how_it_ended(call), COLOURS["killed"])


def _balance(ending: Ending) -> Iterable[str]:
    scene, count = ending.scene, len(ending.scene.calls)
    served, killed, lost = (len(scene.of_fate(fate)) for fate in ("served", "killed from outside", "lost"))
    yield f"{count} calls: {served} served, {killed} killed from outside, {lost} lost or failed."
    if without_call := sum(light.state == "killed" and light.job_id is None for light in scene.lights.values()):
        yield f"Processes killed before they had a call, and replaced: {without_call}."
    if restarts := scene.pool.get("zygote_restarts"):
        yield f"Times that the zygote was lost, and replaced: {restarts}."
    if ending.interrupted:
        yield f"Interrupted: {count - served - killed - lost} calls were ended with the worker."
    elif ending.worker_exit_code != 0:
        yield f"The worker ended with exit code {ending.worker_exit_code}."


def _next(options: DemoOptions) -> Iterable[str]:
    if not options.kill:
        yield f"Next: `{COMMAND} --kill` kills a call, an idle process and the zygote while the calls run."
    else:
        yield f"Next: `{COMMAND} --calls 60 --idle 10`, or kill -9 any process while it runs."
