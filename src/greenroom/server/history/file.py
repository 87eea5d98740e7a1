"""SQLite file of the history: its tables, its rows, and what is removed from it. Used by one thread alone."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from ...log_fields import log_fields
from .rows import LOST, SCHEMA, VERSION, Row
from .shown_metadata import ALL, fields_of, shown_metadata

__all__ = ["HistoryFile", "check", "connect", "is_damage", "is_restricted", "locked"]

_logger = logging.getLogger("greenroom")

_REMOVED_AT_ONCE = 200
"""Most jobs that are removed in one transaction. Between two of them, new rows are written."""
_PART = 0.05
"""Part of the jobs that is removed at once if the file is too large."""
_REWRITTEN_AT_ONCE = 500
_LARGEST_WAL = 4 * 2**20
"""Bytes of the write-ahead log that stay when it begins anew."""
_DAMAGES = ("malformed", "not a database", "file is encrypted")
_MOST_LOST = 100
"""Most jobs of a killed worker that have a log line each. The last line has the number of all."""
_MODE = 0o600  # callers' numbers and logs are for the worker's user alone


def connect(path: Path, *, is_writer: bool) -> sqlite3.Connection:
    mode = "rw" if is_writer else "ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=2.0)


def is_damage(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGES)


def check(path: Path) -> None:
    """Read the whole file. Raises ``sqlite3.DatabaseError`` if it is damaged."""
    with closing(connect(path, is_writer=False)) as file:
        (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is malformed: {found}")


def locked(path: Path) -> int:
    """Return the fd of a lock, so that two workers do not write one history. Raises ``OSError`` if another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"another worker uses this file. Give each worker its own ({path})") from None
    return fd


class HistoryFile:
    """Open file of the history, for writing. ``wanted`` is the setting ``shown_metadata``.

    The constructor makes the tables, and ends the jobs of a worker that was killed. A damaged file is set aside. Raises
    ``sqlite3.Error`` and ``OSError``.
    """

    def __init__(self, path: Path, wanted: tuple[str, ...]) -> None:
        self._path = path
        try:
            self._file = _opened(path, wanted)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
            self._file = _opened(path, wanted)

    def close(self) -> None:
        self._file.close()

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows in one transaction. Raises ``sqlite3.Error``."""
        with self._file:
            for row in rows:
                self._put(row)

    def replace_damaged(self, error: Exception) -> None:
        """Close a file that was found damaged, and set it aside. The object cannot be used any more."""
        with suppress(sqlite3.Error):
            self._file.close()
        self._set_aside(error)

    def prune(self, before: float, most_bytes: float) -> bool:
        """Remove some jobs from before a time, or some of the oldest ones if the file is too large.

        Return true if there may be more to remove. Raises ``sqlite3.Error``.
        """
        if self._remove("at < ?", _REMOVED_AT_ONCE, before):
            return True
        if self._used_bytes() <= most_bytes:
            return False
        (count,) = self._file.execute("SELECT count(*) FROM jobs").fetchone()
        if not self._remove("ended IS NOT NULL", min(max(int(count * _PART), 1), _REMOVED_AT_ONCE)):
            return False
        self._file.executescript("PRAGMA incremental_vacuum")  # execute() would free one page, and stop
        # Without waiting for readers. What they hold up, the next checkpoint does.
        self._file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return True

    def _put(self, row: Row) -> None:
        file = self._file
        (number,) = file.execute(
            "INSERT INTO jobs (id, at, seen, ended, source, outcome, reason, cause, brief, life, report)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, at) DO UPDATE SET seen = excluded.seen,"
            " ended = excluded.ended, outcome = excluded.outcome, reason = excluded.reason, cause = excluded.cause,"
            " brief = excluded.brief, life = coalesce(excluded.life, life), report = excluded.report RETURNING number",
            row[:11],
        ).fetchone()
        if file.execute("SELECT 1 FROM names WHERE job = ? LIMIT 1", (number,)).fetchone() is None:
            file.executemany("INSERT INTO names VALUES (?, ?, ?)", [(number, *pair) for pair in row.names])
        lines = [(number, *line) for line in row.lines]
        file.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?, ?)", lines)
        if row.dropped is not None:
            file.execute("DELETE FROM lines WHERE job = ? AND number BETWEEN ? AND ?", (number, *row.dropped))

    def _remove(self, condition: str, most: int, *values: float) -> int:
        """Remove the oldest jobs for which a condition is true, and return their number."""
        chosen = f"SELECT number FROM jobs WHERE {condition} ORDER BY at LIMIT {most}"
        removed = 0
        with self._file as file:
            for table, column in (("lines", "job"), ("names", "job"), ("lost", "job"), ("jobs", "number")):
                removed = file.execute(f"DELETE FROM {table} WHERE {column} IN ({chosen})", values).rowcount
        return removed

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged file, so that a new one can begin. The one that was set aside before is removed."""
        path = self._path
        _remove_damaged(path)
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.replace(aside)
        text = "the history of jobs in %s is damaged (%s). It is kept as %s, and a new one begins"
        extra = log_fields("history_damaged", cause=str(error))
        _logger.error(text, path, error, aside.name, extra=extra)


def _opened(path: Path, wanted: tuple[str, ...]) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE))  # SQLite's other files get the same mode
    file = connect(path, is_writer=True)
    try:
        lost = _prepare(file)
        _restrict(file, path, wanted)
        _log_lost(file, lost, wanted)
    except sqlite3.Error:
        file.close()
        raise
    return file


def _prepare(file: sqlite3.Connection) -> list[int]:
    """Make the tables, and end the jobs of a worker that was killed. Return the numbers of these jobs."""
    file.execute("PRAGMA auto_vacuum = INCREMENTAL")
    file.execute("PRAGMA journal_mode = WAL")
    # In WAL mode, NORMAL loses no transaction if the process is killed, only if the machine loses power.
    file.execute("PRAGMA synchronous = NORMAL")
    file.execute(f"PRAGMA journal_size_limit = {_LARGEST_WAL}")
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise sqlite3.OperationalError(f"it has version {version}, which a later Greenroom has written")
    with file:
        file.executescript(SCHEMA)
        file.execute(f"PRAGMA user_version = {VERSION}")
        file.execute("INSERT OR IGNORE INTO lost SELECT number FROM jobs WHERE ended IS NULL")
        lost = file.execute(
            "UPDATE jobs SET ended = seen, outcome = 'killed', cause = ? WHERE ended IS NULL RETURNING number", (LOST,)
        )
        return sorted(number for (number,) in lost.fetchall())


def _log_lost(file: sqlite3.Connection, lost: list[int], wanted: tuple[str, ...]) -> None:
    """Log each job of a worker that was killed: that worker could not log their ends."""
    for number in lost[:_MOST_LOST]:
        brief, seen = file.execute("SELECT brief, seen FROM jobs WHERE number = ?", (number,)).fetchone()
        plain = _decoded(brief)
        ids = {name: plain[name] for name in ("process_id", "generation", "source")} | {"job_pid": plain["pid"]}
        shown = None if ALL in wanted else plain["metadata"]
        extra = log_fields(
            "job_lost",
            job_id=plain["id"],
            labels=plain["labels"] or None,
            **ids,
            outcome="killed",
            cause=LOST,
            started=plain["started"],
            seen=seen,
            metadata=shown,
        )
        _logger.warning("job %s was lost with its worker, which was killed", plain["id"], extra=extra)
    if lost:
        text = "%d jobs were lost with an earlier worker, which was killed"
        _logger.warning(text, len(lost), extra=log_fields("jobs_lost", jobs=len(lost), cause=LOST))


def is_restricted(file: sqlite3.Connection, wanted: tuple[str, ...]) -> bool:
    """Return true if the file has no more of the metadata than ``wanted`` allows. Raises ``sqlite3.Error``."""
    return _noted_setting(file) == _setting(wanted)


def _noted_setting(file: sqlite3.Connection) -> str | None:
    found = file.execute("SELECT value FROM settings WHERE name = 'shown_metadata'").fetchone()
    return None if found is None else str(found[0])


def _setting(wanted: tuple[str, ...]) -> str:
    return ",".join(wanted)


def _restrict(file: sqlite3.Connection, path: Path, wanted: tuple[str, ...]) -> None:
    """Remove metadata that may not be shown any more, if the setting is another one than before.

    The setting is noted at the end. So if the worker is killed meanwhile, the next one does all of it again.
    """
    before = _noted_setting(file)
    if before == _setting(wanted):
        return
    if before is not None:
        with file:
            _rewrite(file, wanted)
        # What was removed must be neither in free pages, nor in the write-ahead log, nor in pages that it replaces.
        file.execute("VACUUM")
        if file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise sqlite3.OperationalError("metadata that may not be shown any more cannot be removed: a program reads")
        _remove_damaged(path)
    with file:
        file.execute("INSERT OR REPLACE INTO settings VALUES ('shown_metadata', ?)", (_setting(wanted),))


def _rewrite(file: sqlite3.Connection, wanted: tuple[str, ...]) -> None:
    """Rewrite all jobs, with no more of their metadata than ``wanted`` allows."""
    last = -1
    chosen = f"SELECT number, brief FROM jobs WHERE number > ? ORDER BY number LIMIT {_REWRITTEN_AT_ONCE}"
    while rows := file.execute(chosen, (last,)).fetchall():
        for number, brief in rows:
            plain = _decoded(brief)
            plain["metadata"] = shown_metadata(msgspec.json.encode(plain["metadata"]), wanted)
            names = {"id": plain["id"], **fields_of(plain["metadata"]), **plain["labels"]}
            file.execute("UPDATE jobs SET brief = ? WHERE number = ?", (msgspec.json.encode(plain), number))
            file.execute("DELETE FROM names WHERE job = ?", (number,))
            pairs = [(number, name.casefold(), text.casefold()) for name, text in names.items()]
            file.executemany("INSERT INTO names VALUES (?, ?, ?)", pairs)
        last = rows[-1][0]


def _decoded(brief: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(brief)
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"a record is malformed: {error}") from error
    return found


def _remove_damaged(path: Path) -> None:
    """Remove files that were set aside."""
    for before in path.parent.glob(f"{path.name}.damaged-*"):
        before.unlink(missing_ok=True)
