"""A run's results as JSON, and as the tables of docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES, Figure
from benchmarks.images import IMAGES
from benchmarks.peers import PEERS

ROOT = Path(__file__).resolve().parent.parent
LATEST = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"

Results = dict[str, Any]


def write_json(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1, ensure_ascii=False) + "\n")


def _rounded(value: Any) -> Any:
    """Four digits are more than this machine can tell apart."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value


def read_json(path: Path) -> Results:
    results: Results = json.loads(path.read_text())
    return results


def update_page(results: Results) -> None:
    replace_between(BEGIN, END, markdown(results))


def replace_between(begin: str, end: str, text: str) -> None:
    """Put this between two markers of docs/benchmarks.md."""
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def markdown(results: Results) -> str:
    notes = Notes()
    parts = [provenance(results), _figure_table(results["figures"], notes)]
    if results["scaling"]:
        parts += [_thousand(results["scaling"]), *_scaling_tables(results["scaling"], notes)]
    if notes.texts:
        parts.append("\n".join(f"{number}. {text}" for number, text in enumerate(notes.texts, 1)))
    return "\n\n".join(parts)


class Notes:
    """Reasons are long and tables are narrow: a cell shows a number, the reason stands below."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"<sup>{self.texts.index(text) + 1}</sup>"


def provenance(results: Results) -> str:
    machine = results["machine"]
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("greenroom", "livekit-agents", "pebble", "node") if name in machine
    )
    return (
        f"Made by `{results['command']}` on {machine['date']}, in {results['minutes']:.0f} minutes: "
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory']}, {machine['kernel']}, "
        f"{machine['python']}, load {machine['load']} at the start; {versions}."
    )


def _figure_table(figures: dict[str, dict[str, Any]], notes: Notes) -> str:
    measured = [figure for figure in FIGURES if figure.key in figures]
    names = [name for name in PEERS if any(name in figures[figure.key] for figure in measured)]
    rows = [["figure", "target", *(PEERS[name].label for name in names)]]
    for figure in measured:
        cells = [_cell(figure, name, figures[figure.key].get(name), notes) for name in names]
        rows.append([figure.title, figure.target, *cells])
    return table(rows)


def _cell(figure: Figure, name: str, measured: dict[str, Any] | None, notes: Notes) -> str:
    if measured is None:
        return ""
    if "cannot" in measured:
        return f"—{notes.mark(measured['cannot'])}"
    text = f"{_number(measured['value'])} {figure.unit}"
    if figure.tail:
        text += f", p99 {_number(measured['p99'])}"
    if name == "greenroom":
        return f"**{text}**"
    return f"{text} ({_number(measured['ratio'])}×)" if "ratio" in measured else text


def _number(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _thousand(scaling: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    points = [point for point in scaling["idle"].get("greenroom", []) if "memory_mb" in point]
    if not points:
        return "Greenroom was not followed as the number of sessions grew."
    last = points[-1]
    gib = last["memory_mb"] * 1e6 / 2**30
    return (
        f"{last['sessions']:,} idle processes of Greenroom use {gib:.2f} GiB (target: 1,000 in ≤ 6 GiB), "
        f"its supervisor {last['supervisor_cpu']:.1f} % of a core (target: < 5 %)."
    )


def _scaling_tables(scaling: dict[str, dict[str, list[dict[str, Any]]]], notes: Notes) -> list[str]:
    return [
        f"**{mode.capitalize()} processes** ({IMAGES['livekit'].text}): memory of all processes · CPU of the "
        f"supervisor (of all processes) · launch latency, p50\n\n{_scaling_table(peers, notes)}"
        for mode, peers in scaling.items()
    ]


def _scaling_table(peers: dict[str, list[dict[str, Any]]], notes: Notes) -> str:
    sizes = sorted({point["sessions"] for points in peers.values() for point in points})
    rows = [["", *(f"{size:,}" for size in sizes)]]
    for name, points in peers.items():
        by_size = {point["sessions"]: point for point in points}
        rows.append([PEERS[name].label, *(_scaling_cell(by_size.get(size), notes) for size in sizes)])
    return table(rows)


def _scaling_cell(point: dict[str, Any] | None, notes: Notes) -> str:
    if point is None:
        return "—"
    if "reason" in point:
        return f"—{notes.mark(point['reason'])}"
    return (
        f"{_number(point['memory_mb'])} MB · {_number(point['supervisor_cpu'])} % "
        f"({_number(point['total_cpu'])} %) · {_number(point['launch_p50_ms'])} ms"
    )


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
