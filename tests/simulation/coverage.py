"""Which rows of the tables were reached."""

from __future__ import annotations

from typing import Any

from greenroom.pool.core import generation, job, launcher, process, questions
from greenroom.pool.core.state_machine import Machine

__all__ = ["TABLES", "Reached", "all_rows"]

TABLES: dict[str, dict[Any, dict[Any, Any]]] = {
    "process": process.TABLE,
    "job": job.TABLE,
    "launcher": launcher.TABLE,
    "generation": generation.TABLE,
    "questions": questions.TABLE,
}


def all_rows() -> dict[tuple[Any, Any], str]:
    """Return the rows of all tables, with a name for each."""
    return {
        (state, event): f"{table}.{state.name}.{event.name}"
        for table, rows in TABLES.items()
        for state, by_event in rows.items()
        for event in by_event
    }


class Reached:
    """Notes each row that is reached while it is entered."""

    def __init__(self) -> None:
        self.rows: set[tuple[Any, Any]] = set()

    def __enter__(self) -> Reached:
        self._step = step = Machine.step
        add = self.rows.add

        def noting(machine: Machine, pool: Any, record: Any, event: Any, data: Any = None) -> bool:
            add((record.state, event))
            return step(machine, pool, record, event, data)

        Machine.step = noting  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        Machine.step = self._step  # type: ignore[method-assign]

    def summary(self) -> str:
        """Return a text that names the rows that were not reached."""
        rows = all_rows()
        missing = sorted(name for row, name in rows.items() if row not in self.rows)
        text = f"{len(rows) - len(missing)} of {len(rows)} rows reached"
        return text + "".join(f"\n  not reached: {name}" for name in missing)
