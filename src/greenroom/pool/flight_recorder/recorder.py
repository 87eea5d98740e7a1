"""Flight recorder, which keeps the latest events of a pool's core and the effects that followed, in bounded memory.

The recorder writes lines into segments. Each segment begins with a header and the state of the core, so a replay can
begin with any segment. So old segments can be dropped. Events are noted at once, and written together a moment later.
To write each event alone would delay a start. It costs five times as much, because the CPU's caches are cold.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ... import __version__
from ..core import vocabulary as v
from ..core.core import PoolCore
from .event_rows import EFFECT_ROWS, EVENT_ROWS, vocabulary
from .state import Row, capture, record_names
from .storage import Place

__all__ = ["FORM", "Part", "Recorder", "core_digest"]

_logger = logging.getLogger("greenroom")

FORM = 1
"""Version of the form of a recording."""
_SLICE = 100
"""Records of a state that are encoded in one turn of the event loop: about half a millisecond."""
_MOST_PENDING = 64
"""Most events that are noted and not written yet."""
_encode, _encode_lines = msgspec.json.Encoder().encode, msgspec.json.Encoder().encode_lines


@cache
def core_digest() -> str:
    """Return a digest of the core's code. Two cores with the same digest make the same decisions."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    try:
        for file in [*sorted((package / "pool" / "core").glob("*.py")), package / "options.py"]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    except OSError:
        return "unknown"
    return digest.hexdigest()[:16]


_Noted = tuple[v.Happening, float, list[v.Effect], float | None, str]
_Later = Callable[[Callable[[], object]], object]


class Part(NamedTuple):
    """Part of a recording: the first ``size`` bytes of ``fd``. The reader of the part closes the fd."""

    fd: int
    size: int


class _Segment:
    __slots__ = ("fd", "number", "size")

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.fd = fd
        self.size = 0


class Recorder:
    """Recorder of one core, which takes at most ``most`` bytes.

    ``later`` calls a function in the next turn of the event loop. ``soon`` calls a function within some milliseconds.
    The default of ``soon`` is ``later``.
    """

    def __init__(self, core: PoolCore, place: Place, most: int, later: _Later, soon: _Later | None = None) -> None:
        self._core = core
        self._place = place
        self._most = most
        self._later, self._soon = later, soon or later
        self._events = 0
        """Count of the events that are written."""
        self._pending: list[_Noted] = []
        self._due: float | None = None
        """Next deadline of the core, as it was last written. A deadline is recorded because it is a decision, too."""
        self._segments: list[_Segment] = []
        self._segment: _Segment | None = None
        self._full_at = most // 4
        self._rows: list[Row] = []
        """Rows that are left of a state that is being written, in reverse order."""
        self._begin_segment()

    @property
    def is_on(self) -> bool:
        """True while it records."""
        return self._segment is not None

    def note(self, event: v.Happening, now: float, effects: list[v.Effect], raised: str = "") -> None:
        """Record an event. ``raised`` is the exception's type if the core failed to handle the event."""
        if self._segment is None:
            return
        self._pending.append((event, now, effects, self._core.next_deadline(), raised))
        if len(self._pending) == 1:
            self._soon(self.flush)
        elif len(self._pending) >= _MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Write the events that are noted."""
        pending, self._pending = self._pending, []
        segment = self._segment
        if segment is None or not pending:
            return
        try:
            data = _encode_lines([self._row(number, *one) for number, one in enumerate(pending, self._events + 1)])
        except Exception:
            data = b"".join(self._line_or_gap(number, one) for number, one in enumerate(pending, self._events + 1))
            self._full_at = 0  # write the state soon: only from there can a replay go on after the gap
        self._events += len(pending)
        self._write(segment, data)
        is_full = segment.size >= self._full_at and self._segment is segment
        if is_full and not self._rows and not self._core.pool.effects:
            self._begin_segment()

    def _line_or_gap(self, number: int, noted: _Noted) -> bytes:
        try:
            return _encode_lines((self._row(number, *noted),))
        except Exception as error:  # for example: the id of a job is not a text
            return _encode_lines((("lost", number, f"{type(error).__name__}: {error}"[:200]),))

    def _row(
        self, number: int, event: v.Happening, now: float, effects: list[v.Effect], due: float | None, raised: str
    ) -> Row:
        rows = [EFFECT_ROWS[type(effect)](effect) for effect in effects]
        row: Row = (number, now, EVENT_ROWS[type(event)](event), rows)
        if due != self._due or raised:
            self._due = due
            return (*row, due, raised) if raised else (*row, due)
        return row

    def parts(self) -> list[Part]:
        """Return all that is recorded at this moment, oldest first. Raises ``OSError`` if no fds are left."""
        self.flush()
        found: list[Part] = []
        try:
            found.extend(Part(os.dup(one.fd), one.size) for one in self._segments)
        except OSError:
            for part in found:
                os.close(part.fd)
            raise
        return found

    def close(self) -> None:
        """Stop, and remove the recording."""
        if self._segment is not None:
            self._stop()
            self._place.close()

    # --- segments --------------------------------------------------------------------------------

    def _begin_segment(self) -> None:
        try:
            rows = capture(self._core.pool)
            number = self._segments[-1].number + 1 if self._segments else 1
            segment = _Segment(number, self._place.open(number))
        except Exception as error:
            self._give_up(error)
            return
        self._segments.append(segment)
        self._segment = segment
        self._full_at = self._most // 4
        begin = _encode(("state", self._events, len(rows)))
        self._write(segment, _header(self._core.pool.offset) + b"\n" + begin + b"\n")
        rows.reverse()
        self._rows = rows
        self._write_state()

    def _write_state(self) -> None:
        """Write a slice of the state, and the rest in later turns. A large state would hold up the event loop."""
        segment = self._segment
        if segment is None:
            self._rows = []
            return
        pieces: list[bytes] = []
        try:
            while self._rows and len(pieces) < _SLICE:
                pieces.append(b'["record",' + _encode(self._rows.pop()) + b"]\n")
        except Exception as error:
            self._give_up(error)
            return
        if not self._rows:
            pieces.append(_encode(("end",)) + b"\n")
        self._write(segment, b"".join(pieces))
        if self._rows:
            self._later(self._write_state)
        elif self._segment is not None:
            self._make_room(segment)

    def _make_room(self, segment: _Segment) -> None:
        """Set the segment's size by the size of its state, and drop old segments to make room."""
        self._full_at = max(self._most // 4, 2 * segment.size)
        if self._full_at > self._most:
            size, most = (round(one / 2**20, 1) for one in (segment.size, self._most))
            self._give_up(f"the state of the pool takes {size} MiB. Raise flight_recorder_mb ({most})")
            return
        while len(self._segments) > 1 and self._bytes() - segment.size + self._full_at > self._most:
            dropped = self._segments.pop(0)
            os.close(dropped.fd)
            self._place.drop(dropped.number)

    def _bytes(self) -> int:
        return sum(one.size for one in self._segments)

    def _write(self, segment: _Segment, data: bytes) -> None:
        # Not by mmap(2). If the file is truncated or no memory is left, a write fails, but a map kills this process.
        try:
            written = os.write(segment.fd, data)
        except OSError as error:
            self._give_up(error)
            return
        segment.size += written
        if written < len(data):
            self._give_up("no space is left")

    def _give_up(self, cause: object) -> None:
        """Stop the recording and log the cause. The pool goes on without a recording."""
        self._stop()
        self._place.close()
        text = "the flight recorder failed, and records nothing from now on: %s"
        self._later(partial(_logger.error, text, cause))

    def _stop(self) -> None:
        for one in self._segments:
            os.close(one.fd)
        self._segments, self._segment, self._rows, self._pending = [], None, [], []


def _header(offset: float) -> bytes:
    header: dict[str, Any] = {
        "flight_recording": FORM,
        "form": "rows",
        "greenroom": __version__,
        "core": core_digest(),
        "python": platform.python_version(),
        "pid": os.getpid(),
        "offset": offset,
        "vocabulary": {**vocabulary(), "records": record_names()},
    }
    return _encode(header)
