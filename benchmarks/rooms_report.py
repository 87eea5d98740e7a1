"""What `benchmarks.rooms` measured, as the tables and the plot of docs/benchmarks.md.

`python -m benchmarks.rooms_report` makes them anew from benchmarks/results/rooms.json, and measures nothing.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import plot, report

__all__ = ["LATEST", "TIMES", "WORKERS", "markdown", "render"]

LATEST = report.LATEST.with_name("rooms.json")
PICTURE = plot.PICTURE.with_name("rooms.png")
BEGIN, END = "<!-- begin: rooms -->", "<!-- end: rooms -->"

WORKERS = ("greenroom", "livekit-agents")
TIMES = ("picked up", "entered", "joined", "heard")
"""In the order in which they come; all but the first since the dispatch was asked for."""
_COLORS = dict(zip(WORKERS, ("#0a7f4f", "#d9622b"), strict=True))
_QUIET = 0.5
_LOSSES = {"SIGTERM": "drained", "SIGKILL": "killed"}

Burst = dict[str, Any]


def render() -> None:
    results = report.read_json(LATEST)
    report.replace_between(BEGIN, END, markdown(results))
    draw(results["results"])


def markdown(results: report.Results) -> str:
    measured = results["results"]
    bursts = [one for one in measured if "rooms" in one]
    losses = [one for one in measured if "loss" in one]
    parts = [report.provenance(results), _loads_text(measured)]
    if bursts:
        parts += [_bursts_table(bursts), _every_join(bursts), _cpu_text(bursts)]
    alone = [one for one in measured if "alone" in one]
    if alone:
        parts += ["Without callers on the machine, by the server's list of participants:", _alone_table(alone)]
    greeted = [one for one in measured if "greeted" in one]
    if greeted:
        parts += ["An agent that greets by an `AgentSession`, to the first word:", _greeted_table(greeted)]
    streams = [one for one in measured if "rate" in one]
    if streams:
        parts += [_streams_text(streams), _streams_table(streams)]
    if losses:
        parts += [_losses_text(losses), _losses_table(losses)]
    at_rest = [one for one in measured if "cpu_percent" in one]
    if at_rest:
        parts.append(_rest_text(at_rest))
    return "\n\n".join(parts)


def _loads_text(measured: list[Burst]) -> str:
    """Load before each round: that of the round before is a part of it."""
    loads = [one["load"] for one in measured if "load" in one]
    busy = sum(load > _QUIET for load in loads)
    return f"{busy} of {len(loads)} rounds began at a load above {_QUIET:g}; the highest was {max(loads):.1f}."


def _bursts_table(bursts: list[Burst]) -> str:
    """Medians over the rounds of the median and of the last room."""
    rows = [["rooms", "worker", *(f"{what}, median / last" for what in TIMES), "not taken"]]
    for size in sorted({burst["rooms"] for burst in bursts}):
        for kind in WORKERS:
            of_kind = [burst for burst in bursts if burst["rooms"] == size and burst["worker"] == kind]
            rows.append([str(size), kind, *_cells(of_kind), _not_taken(of_kind, size)])
    return report.table(rows)


def _cpu_text(bursts: list[Burst]) -> str:
    """CPU time for one call: the agent, the refill, and the worker's own share."""
    parts = []
    for size in sorted({burst["rooms"] for burst in bursts}):
        medians = [
            statistics.median(one["cpu_per_call"] for one in bursts if (one["rooms"], one["worker"]) == (size, kind))
            for kind in WORKERS
        ]
        parts.append(f"{size} at once {medians[0]:.2f} and {medians[1]:.2f}")
    return f"CPU seconds for one call, {' and '.join(WORKERS)}: {'; '.join(parts)}."


def _alone_table(alone: list[Burst]) -> str:
    rows = [["rooms", "worker", "joined, median / last", "not taken"]]
    for size in sorted({one["alone"] for one in alone}):
        for kind in WORKERS:
            of_kind = [one for one in alone if (one["alone"], one["worker"]) == (size, kind)]
            rows.append([str(size), kind, _over_rounds(of_kind, "joined"), _not_taken(of_kind, size)])
    return report.table(rows)


def _greeted_table(greeted: list[Burst]) -> str:
    rows = [["rooms", "worker", "joined, median / last", "heard, median / last", "CPU seconds a call", "not taken"]]
    for size in sorted({one["greeted"] for one in greeted}):
        for kind in WORKERS:
            of_kind = [one for one in greeted if (one["greeted"], one["worker"]) == (size, kind)]
            cpu = statistics.median(one["cpu_per_call"] for one in of_kind)
            times = [_over_rounds(of_kind, what) for what in ("joined", "heard")]
            rows.append([str(size), kind, *times, f"{cpu:.2f}", _not_taken(of_kind, size)])
    return report.table(rows)


def _streams_text(streams: list[Burst]) -> str:
    rate, seconds = streams[0]["rate"], streams[0]["seconds"]
    rounds = sum(one["worker"] == WORKERS[0] for one in streams)
    return (
        f"Arrivals at random, {rate:g} a second on average, without callers, from the dispatch to joined; {rounds} "
        f"rounds of {seconds:g} s, pooled. In brackets, 95 % of 2,000 resamples:"
    )


def _streams_table(streams: list[Burst]) -> str:
    rows = [["worker", "joined, p50", "joined, p99", "CPUs used", "steal", "not taken"]]
    for kind in WORKERS:
        of_kind = [one for one in streams if one["worker"] == kind]
        times = [time for one in of_kind for time in one["joined"]]
        quantiles = [_with_interval(times, part) for part in (0.5, 0.99)]
        parts = [", ".join(f"{one[what]:.0%}" for one in of_kind) for what in ("busy", "steal")]
        missed = sum(one["not_taken"] for one in of_kind)
        rows.append([kind, *quantiles, *parts, f"{missed} of {missed + len(times)}"])
    return report.table(rows)


def _with_interval(times: list[float], part: float) -> str:
    """A quantile, with what the resamples say of it."""
    resample = random.Random(0)
    found = sorted(_quantile(resample.choices(times, k=len(times)), part) for _ in range(2000))
    return f"{_quantile(times, part):.2f} s ({found[50]:.2f} to {found[-51]:.2f})"


def _quantile(times: list[float], part: float) -> float:
    return sorted(times)[min(int(len(times) * part), len(times) - 1)]


def _losses_text(losses: list[Burst]) -> str:
    rooms = losses[0]["not_taken"] + len(losses[0]["joined"])
    return f"Two workers, one of which is drained or killed in the moment in which {rooms} rooms are dispatched:"


def _losses_table(losses: list[Burst]) -> str:
    rows = [["one is", "workers", *(f"{what}, median / last" for what in TIMES), "not taken"]]
    for sign, word in _LOSSES.items():
        for kind in WORKERS:
            of_kind = [one for one in losses if one["loss"] == sign and one["worker"] == kind]
            rooms = of_kind[0]["not_taken"] + len(of_kind[0]["joined"])
            rows.append([word, kind, *_cells(of_kind), _not_taken(of_kind, rooms)])
    return report.table(rows)


def _cells(bursts: list[Burst]) -> list[str]:
    return [_over_rounds(bursts, what) for what in TIMES]


def _over_rounds(bursts: list[Burst], what: str) -> str:
    known = [burst[what] for burst in bursts if burst[what]]
    if not known:
        return "–"
    middle = statistics.median(statistics.median(times) for times in known)
    last = statistics.median(times[-1] for times in known)
    if what == "picked up":
        return f"{1000 * middle:,.0f} / {1000 * last:,.0f} ms"
    return f"{middle:.2f} / {last:.2f} s"


def _not_taken(bursts: list[Burst], rooms: int) -> str:
    return f"{sum(burst['not_taken'] for burst in bursts)} of {rooms * len(bursts)}"


def _every_join(bursts: list[Burst]) -> str:
    """One round each of ten rooms: that whose last room is the median of all rounds."""
    lines = []
    for kind in WORKERS:
        rounds = [burst["joined"] for burst in bursts if burst["rooms"] == 10 and burst["worker"] == kind]
        if rounds:
            middle = sorted(rounds, key=lambda times: times[-1])[(len(rounds) - 1) // 2]
            lines.append(f"{kind}: {' '.join(f'{seconds:.2f}' for seconds in middle)}")
    return "Ten rooms, from the dispatch to each agent in its room, in s. " + "; ".join(lines) + "."


def _rest_text(at_rest: list[Burst]) -> str:
    parts = [
        f"{one['private_mb']:.0f} MB private in {one['processes']} processes, {one['idle_process_mb']:.1f} MB of it in "
        f"each idle one, and {one['cpu_percent']:.1f} % of a core ({one['worker']})"
        for one in at_rest
    ]
    return f"At rest with {at_rest[0]['idle']} idle processes: {'; '.join(parts)}."


# --- the plot -------------------------------------------------------------------------------------


def draw(measured: list[Burst]) -> None:
    """How many rooms have their agent, as time goes by; a line for each round."""
    mpl.rcParams["font.family"] = "DejaVu Sans"
    bursts = [one for one in measured if one.get("rooms", 0) > 1]
    sizes = sorted({burst["rooms"] for burst in bursts})
    figure = Figure(figsize=(12, 4.4), facecolor="white", layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        _panel(axes, size, [burst for burst in bursts if burst["rooms"] == size])
    figure.suptitle("Rooms dispatched at once, 3 idle processes, 2 cores", fontsize=13, x=0.01, ha="left")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


def _panel(axes: Axes, size: int, bursts: list[Burst]) -> None:
    end = max(burst["joined"][-1] for burst in bursts if burst["joined"])
    for burst in bursts:
        kind, times = burst["worker"], burst["joined"]
        x, y = [0.0, *times, end], [0, *range(1, len(times) + 1), len(times)]
        axes.step(x, y, where="post", color=_COLORS[kind], linewidth=2.2 if kind == WORKERS[0] else 1.5, label=kind)
    axes.axhline(size, color="#59636e", linewidth=0.8, linestyle=":")
    axes.set_title(f"{size} rooms", fontsize=11, loc="left")
    axes.set_xlabel("seconds after the dispatch")
    axes.set_ylabel("agents in their rooms")
    axes.grid(True, color="#e6e8eb")
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(by_label.values(), by_label.keys(), frameon=False, loc="lower right")


if __name__ == "__main__":
    render()
