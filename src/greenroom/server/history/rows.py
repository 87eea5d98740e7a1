"""Records of jobs as rows of a database, and searches as SQL. Pure.

A job is one row in ``jobs``, and one row in ``names`` for each text by which it can be found. Its log lines are rows of
their own, so that a line is written once. ``lost`` lists jobs that were lost with their worker, until their spans are
sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...clean_text import clean
from ...json_encoding import encode
from .lines import Line
from .record import Record
from .search import Query

__all__ = ["END_COLUMNS", "LOST", "SCHEMA", "VERSION", "Row", "row_of", "select"]

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL, seen REAL NOT NULL, ended REAL, source TEXT NOT NULL,
  outcome TEXT, reason TEXT, cause TEXT, brief BLOB NOT NULL, life BLOB, report BLOB, UNIQUE (id, at)
);
CREATE INDEX IF NOT EXISTS jobs_at ON jobs (at);
CREATE INDEX IF NOT EXISTS jobs_live ON jobs (number) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS names (job INTEGER NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS names_text ON names (text, name, job);
CREATE INDEX IF NOT EXISTS names_job ON names (job);
CREATE TABLE IF NOT EXISTS lines (
  job INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, level TEXT NOT NULL, origin TEXT NOT NULL,
  text TEXT NOT NULL, PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (job INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
LOST = "lost with the worker"
"""Cause of the end of a job whose worker was killed before the job's end was known."""

END_COLUMNS = "ended, outcome, reason, cause"
_HIGHEST = "\U0010ffff"
_STATES = {"ended": "ended IS NOT NULL", "live": "ended IS NULL"}
_COLUMNS = {"source", "outcome", "reason", "cause"}


class Row(NamedTuple):
    """State of one job, to be written, with the log lines since the last one."""

    id: str
    at: float
    seen: float
    """Time of this state. A job that is lost with its worker has ended about then."""
    ended: float | None
    source: str
    outcome: str | None
    reason: str | None
    cause: str | None
    brief: bytes
    life: bytes | None
    """Steps and samples; ``None`` if those that were written before stay."""
    report: bytes | None
    names: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    dropped: tuple[int, int] | None
    """First and last number of the lines between, which are not kept any more."""


def row_of(record: Record, now: float, after: int, *, has_life: bool = True) -> Row:
    """Return the row of a record. ``after`` is the number of the last line that is written already.

    Without ``has_life``, the steps and samples that were written before stay.
    """
    report = record.report
    life = {"steps": record.steps, "samples": record.figures.all()} if has_life else None
    return Row(
        id=clean(record.id),
        at=record.at,
        seen=now,
        ended=record.ended,
        source=clean(record.source),
        outcome=None if report is None else report.outcome,
        reason=None if report is None else report.reason,
        cause=None if record.cause is None else clean(record.cause),
        brief=encode(record.brief(now) | {"trace": record.trace}),
        life=None if life is None else encode(life),
        report=None if report is None else encode(_plain_report(record)),
        names=tuple((clean(name), clean(text)) for name, text in _names(record)),
        lines=tuple(map(_clean_line, record.lines.after(after))),
        dropped=record.lines.dropped,
    )


def _clean_line(line: Line) -> Line:
    return line._replace(origin=clean(line.origin), text=clean(line.text))


def _names(record: Record) -> Iterator[tuple[str, str]]:
    yield "id", record.id.casefold()
    yield from record.fields.items()


def _plain_report(record: Record) -> dict[str, Any]:
    assert record.report is not None
    plain = dataclasses.asdict(record.report)
    del plain["result_payload"]
    return plain


def select(query: Query, limit: int) -> tuple[str, list[Any]]:
    """Return the SQL that finds the briefs of the latest jobs that match, latest first, and its parameters."""
    conditions, values = [], []
    for condition, more in _conditions(query):
        conditions.append(condition)
        values += more
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT brief, {END_COLUMNS} FROM jobs{where} ORDER BY at DESC LIMIT ?", [*values, limit]


def _conditions(query: Query) -> Iterator[tuple[str, list[Any]]]:
    if query.since is not None:
        yield "coalesce(ended, seen) >= ?", [query.since]
    if query.until is not None:
        yield "at <= ?", [query.until]
    for name, text in query.terms:
        if name == "state":
            yield _STATES.get(text, "0"), []
            continue
        is_column = name in _COLUMNS
        test, values = _test("lower(" + name + ")" if is_column else "text", text)
        if is_column:
            yield test, values
        else:
            yield f"number IN (SELECT job FROM names WHERE {test} AND name = ?)", [*values, name.casefold()]
    for word in query.words:
        # Reads one index from end to end, and no job.
        yield "number IN (SELECT job FROM names WHERE text LIKE ? ESCAPE '\\')", [f"%{_escaped(word)}%"]


def _test(column: str, text: str) -> tuple[str, list[Any]]:
    if text.endswith("*"):
        return f"{column} >= ? AND {column} < ?", [text[:-1], text[:-1] + _HIGHEST]
    return f"{column} = ?", [text]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
