"""Draw the tables of the core into docs/architecture.md; with --check, only report whether they are up to date."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from greenroom.pool.core import generation, job, launcher, process, questions
from greenroom.pool.core.state_machine import Row
from greenroom.pool.core.states import Bound

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
BEGIN, END = "<!-- tables of the core: begin -->", "<!-- tables of the core: end -->"

TABLES: tuple[tuple[str, Any, dict[Any, str]], ...] = (
    ("A process", process.TABLE, process.UNBOUNDED),
    ("A job", job.TABLE, job.UNBOUNDED),
    ("A launcher", launcher.TABLE, launcher.UNBOUNDED),
    ("A generation", generation.TABLE, generation.UNBOUNDED),
    ("A question to the resident process", questions.TABLE, questions.UNBOUNDED),
)


def drawn() -> str:
    """Return all tables as Markdown."""
    return "\n".join(_drawn(title, table, unbounded) for title, table, unbounded in TABLES)


def _drawn(title: str, table: Any, unbounded: dict[Any, str]) -> str:
    lines = [f"**{title}**: {len(table)} states, {sum(map(len, table.values()))} rows.", ""]
    lines += ["| state | deadline | what can happen |", "| --- | --- | --- |"]
    for state, rows in table.items():
        name = f"`{state.name}`" + (f" ({state.public})" if hasattr(state, "public") else "")
        lines.append(f"| {name} | {_deadline(table, state, unbounded)} | {_events(state, rows)} |")
    return "\n".join([*lines, ""])


def _deadline(table: Any, state: Any, unbounded: dict[Any, str]) -> str:
    bounds = {row.bound.value for rows in table.values() for row in rows.values() if _sets(row, state)}
    reason = unbounded.get(state)
    return "; ".join([*sorted(bounds), *([f"none: {reason}"] if reason and not bounds else [])])


def _sets(row: Row, state: Any) -> bool:
    return row.then is state and row.bound not in (Bound.KEEP, Bound.NONE)


def _events(state: Any, rows: Any) -> str:
    by_target = defaultdict(list)
    for event, row in rows.items():
        target = "nothing" if row.then is state and not row.do else f"`{row.then.name}`"
        by_target[target].append(event.value)
    return "; ".join(f"{', '.join(events)} → {target}" for target, events in by_target.items())


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n\n{drawn()}\n{END}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(wanted)
    elif text != wanted:
        print(f"{PAGE.name} differs from the tables. Run: python scripts/pool_tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
