"""The picture of docs/benchmarks.md: how cost grows with the number of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.peers import PEERS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "scaling.png"

_INK, _MUTED, _GRID = "#1f2328", "#59636e", "#e6e8eb"
_STYLES = {
    "greenroom": ("#0a7f4f", "o", 2.6),
    "livekit-forkserver": ("#d9622b", "s", 1.6),
    "livekit-spawn": ("#a8326e", "D", 1.6),
    "livekit-node": ("#7a5cc4", "^", 1.6),
    "futures-forkserver": ("#2f6fb3", "v", 1.6),
}
_LOWEST_CPU = 0.1
"""Per cent of a core; anything less is drawn here, since a logarithmic axis has no zero."""
_COLUMNS = (
    ("memory_mb", "memory of all processes", "MB"),
    ("supervisor_cpu", "CPU: supervisor, all (dotted)", "% of a core"),
    ("launch_p50_ms", "launch latency, median", "ms"),
)

Points = list[dict[str, Any]]


def draw(results: dict[str, Any]) -> None:
    mpl.rcParams["font.family"] = "DejaVu Sans"
    scaling: dict[str, dict[str, Points]] = results["scaling"]
    figure = Figure(figsize=(12, 7.4), facecolor="white", layout="constrained")
    grid = figure.subplots(len(scaling), len(_COLUMNS), squeeze=False, sharex=True, sharey="col")
    for row, (mode, peers) in zip(grid, scaling.items(), strict=True):
        for axes, (key, title, unit) in zip(row, _COLUMNS, strict=True):
            _panel(axes, peers, key)
            axes.set_title(f"{title}, {mode}", fontsize=11, color=_INK, loc="left")
            axes.set_ylabel(unit, fontsize=10, color=_MUTED)
    for axes in grid[-1]:
        axes.set_xlabel("processes", fontsize=10, color=_MUTED)
    _legend(figure, grid[0][0])
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


def _panel(axes: Axes, peers: dict[str, Points], key: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({point["sessions"] for points in peers.values() for point in points})
    for name, points in peers.items():
        _line(axes, name, points, key)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color=_GRID, linewidth=0.9)
    axes.tick_params(colors=_MUTED, labelsize=9, which="both", length=0)
    for side in axes.spines.values():
        side.set_color(_GRID)


def _line(axes: Axes, name: str, points: Points, key: str) -> None:
    color, marker, width = _STYLES.get(name, (_MUTED, "o", 1.6))
    reached = [point for point in points if key in point]
    if not reached:
        return
    x = [point["sessions"] for point in reached]
    y = _heights(reached, key)
    zorder = 3 if name == "greenroom" else 2
    if key == "supervisor_cpu":
        axes.plot(x, _heights(reached, "total_cpu"), color=color, linestyle=":", linewidth=width, zorder=1)
    axes.plot(
        x,
        y,
        color=color,
        marker=marker,
        markersize=6,
        linewidth=width,
        label=PEERS[name].label,
        zorder=zorder,
    )
    if len(reached) < len(points):  # stopped at the next size
        axes.plot(x[-1:], y[-1:], marker="x", markersize=13, markeredgewidth=1.8, color=color, zorder=zorder)


def _heights(points: Points, key: str) -> list[float]:
    lowest = _LOWEST_CPU if key.endswith("_cpu") else 0.0
    return [max(point[key], lowest) for point in points]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10)
    for text in legend.get_texts():
        text.set_color(_INK)
    figure.suptitle(
        "What many sessions cost (livekit.agents imported; ✕: the next size was out of bounds)",
        fontsize=13,
        color=_INK,
        x=0.01,
        ha="left",
    )
