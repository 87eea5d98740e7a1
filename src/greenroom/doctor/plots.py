"""Pictures of a bench: one by matplotlib for files, and one of characters for terminals."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError
from .bench_figures import BARS, Bar, BenchFigures, MemoryPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_can_draw", "draw", "histogram_lines", "memory_lines"]

_INK, _MUTED, _GRID, _GREEN = "#1f2328", "#59636e", "#e6e8eb", "#0a7f4f"
_FORMATS = (".png", ".svg", ".pdf")
_WIDTH = 40


def check_can_draw(path: Path) -> None:
    """Check that a picture can be drawn, before anything is measured. Raises :class:`OptionError` if not."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError(
            "--plot needs matplotlib, which is not installed. Run pip install 'greenroom[plot]'. Without --plot, the "
            "figures are drawn with characters"
        )
    if path.suffix not in _FORMATS:
        raise OptionError(f"--plot is {path}; its name must end in one of: {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise OptionError(f"--plot is {path}, but there is no folder {path.absolute().parent}")


def draw(figures: BenchFigures, path: Path) -> None:
    """Draw launch latency on the left, and memory on the right. Raises ``OSError`` if the file cannot be written."""
    from matplotlib.figure import Figure  # imported late: a package of an extra

    figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_histogram(left, figures)
    _draw_memory(right, figures.memory)
    figure.suptitle(f"greenroom bench {figures.app}", fontsize=12, color=_INK, x=0.01, ha="left")
    figure.savefig(path, dpi=130)


def _draw_histogram(axes: Axes, figures: BenchFigures) -> None:
    bars = figures.histogram
    axes.bar(
        [bar.low * 1000 for bar in bars],
        [bar.count for bar in bars],
        width=[max(bar.high - bar.low, 1e-6) * 1000 for bar in bars],
        align="edge",
        color=[_GREEN if number < BARS else _MUTED for number in range(len(bars))],  # grey: the slowest 5 %
        edgecolor="white",
    )
    title = "launch: claim → acknowledged"
    if figures.launch is not None:
        title += f", p50 {figures.launch.p50 * 1000:.2f} ms, p99 {figures.launch.p99 * 1000:.2f} ms"
    _dress(axes, title, "ms", "launches")


def _draw_memory(axes: Axes, points: Sequence[MemoryPoint]) -> None:
    axes.plot([point.idle for point in points], [point.total_mb for point in points], marker="o", color=_GREEN)
    axes.set_ylim(bottom=0)
    title = "memory: zygote and idle processes (PSS)"
    if points:
        title += f", {points[-1].private_mb:.1f} MiB private each"
    _dress(axes, title, "idle processes", "MiB")


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, color=_INK, loc="left")
    axes.set_xlabel(x, fontsize=9, color=_MUTED)
    axes.set_ylabel(y, fontsize=9, color=_MUTED)
    axes.grid(True, axis="y", color=_GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=8, length=0)
    for side in axes.spines.values():
        side.set_color(_GRID)


def histogram_lines(bars: Sequence[Bar]) -> list[str]:
    most = max((bar.count for bar in bars), default=0)
    return [
        f"{bar.low * 1000:8.2f} – {bar.high * 1000:8.2f} ms {bar.count:6} {_stroke(bar.count, most)}".rstrip()
        for bar in bars
    ]


def memory_lines(points: Sequence[MemoryPoint]) -> list[str]:
    most = max((point.total_mb for point in points), default=0.0)
    return [
        f"{point.idle:6} idle {point.total_mb:9.1f} MiB, {point.private_mb:5.1f} private each "
        f"{_stroke(point.total_mb, most)}"
        for point in points
    ]


def _stroke(value: float, most: float) -> str:
    return "█" * round(_WIDTH * value / most) if most else ""
