"""Search for jobs: ``caller:+1555* outcome:killed since:2h at:14:05 hall``. Pure.

A query is a list of words. ``name:text`` asks for a label, a key of the metadata, or one of the names below; ``*`` at
the end of a text stands for any rest. Other words must be anywhere in the job's texts. Double quotes keep blanks
together. All words must match.

A time is a span before now (``2h``), a time of day (``14:05``), which is the latest such moment, or a date with a time
(``2026-11-29T14:05``). It is the time of the reader's clock, unless it has an offset from UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta, timezone

from ...errors import OptionError
from .record import Record

__all__ = ["STATES", "Query", "parse"]

MOST_WORDS = 10
STATES = ("live", "ended")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_CLOCK = re.compile(r"(?:\d{4}-\d\d-\d\d[tT])?\d\d:\d\d(?P<seconds>:\d\d)?(?:[zZ]|[+-]\d\d:\d\d)?")

_KNOWN: dict[str, Callable[[Record], object]] = {
    "id": lambda record: record.id,
    "source": lambda record: record.source,
    "outcome": lambda record: record.report.outcome if record.report else None,
    "reason": lambda record: record.report.reason if record.report else None,
    "cause": lambda record: record.cause,
}


@dataclass(frozen=True, slots=True)
class Query:
    """Parsed query. ``since`` and ``until`` are seconds since the epoch."""

    terms: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def with_terms(self, *terms: tuple[str, str | None]) -> Query:
        """Return a query with more terms. A term without a text is left out."""
        more = tuple((name.casefold(), text.casefold()) for name, text in terms if text is not None)
        return replace(self, terms=(*self.terms, *more))

    def matches(self, record: Record) -> bool:
        end = record.ended if record.ended is not None else float("inf")
        if (self.since is not None and end < self.since) or (self.until is not None and record.at > self.until):
            return False
        return all(_has(record, name, text) for name, text in self.terms) and all(
            _contains(record, word) for word in self.words
        )


def parse(text: str, now: float, utc_offset: float = 0.0) -> Query:
    """Parse a query. A quote that is not closed reaches to the end. Raises ``OptionError`` for a wrong time.

    ``utc_offset``: seconds by which the reader's clock is ahead of UTC.
    """
    terms, others = [], []
    since: float | None = None
    until: float | None = None
    zone = timezone(timedelta(seconds=utc_offset))
    words = [found.replace('"', "") for found in _WORD.findall(text)]
    if len(words) > MOST_WORDS:
        raise OptionError(f"the search has {len(words)} words; at most {MOST_WORDS} are possible")
    for word in words:
        name, colon, value = word.partition(":")
        if not colon or not name or not value:
            others.append(word.casefold())
        elif name == "since":
            since, _ = _moment(value, now, zone)
        elif name == "until":
            until, _ = _moment(value, now, zone)
        elif name == "at":
            since, until = _moment(value, now, zone)
        else:
            terms.append((name.casefold(), value.casefold()))
    return Query(tuple(terms), tuple(others), since, until)


def _moment(text: str, now: float, zone: timezone) -> tuple[float, float]:
    """Return a moment, and the end of the minute or second that its text names."""
    span, clock = _DURATION.fullmatch(text), _CLOCK.fullmatch(text)
    if span is not None:
        begin = now - float(span[1]) * _UNITS[span[2]]
        return begin, begin + _UNITS[span[2]]
    try:
        if clock is None:
            raise ValueError
        at = _of_day(text, now, zone) if "-" not in text[:5] else datetime.fromisoformat(text.upper())
        begin = at.replace(tzinfo=at.tzinfo or zone).timestamp()
    except (ValueError, OverflowError):
        raise OptionError(f"{text!r} is no time; write 90s, 15m, 2h, 7d, 14:05 or 2026-11-29T14:05") from None
    return begin, begin + (60.0 if clock["seconds"] is None else 1.0)


def _of_day(text: str, now: float, zone: timezone) -> datetime:
    """Return the latest moment at which the clock has shown a time of day. Raises ``ValueError``."""
    of_day = time.fromisoformat(text.upper())
    today = datetime.fromtimestamp(now, of_day.tzinfo or zone)
    at = datetime.combine(today.date(), of_day, today.tzinfo)
    return at if at <= today else at - timedelta(days=1)


def _has(record: Record, name: str, wanted: str) -> bool:
    if name == "state":
        return wanted in STATES and (wanted == "ended") == (record.ended is not None)
    known = _KNOWN.get(name)
    found = record.fields.get(name) if known is None else known(record)
    if found is None:
        return False
    text = str(found).casefold()
    return text.startswith(wanted[:-1]) if wanted.endswith("*") else text == wanted


def _contains(record: Record, word: str) -> bool:
    return word in record.text
