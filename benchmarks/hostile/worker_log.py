"""Reads the worker's log as it is written, and keeps only what the account needs: floods are part of the hour."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

HELD_UP = re.compile(r"the supervisor was held up for ([0-9.]+) s")
TAIL = 40
SHOWN = 1000
LONGEST_LINE = 4 << 20


class WorkerLog:
    """A thread that reads until nobody can write any more."""

    def __init__(self, pipe: IO[bytes], copy: Path | None) -> None:
        self.bytes = 0
        self.broken = 0
        """Lines that are no JSON object, though the worker was asked for JSON."""
        self.hold_ups: list[tuple[float, float]] = []
        """When the worker said that its event loop had been held up, and for how long."""
        self.url: str | None = None
        self._tail: deque[bytes] = deque(maxlen=TAIL)
        self._pipe = pipe
        self._copy = copy.open("wb") if copy else None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(5)
        self._pipe.close()
        if self._copy:
            self._copy.close()

    @property
    def tail(self) -> str:
        """Its last lines."""
        return b"".join(line[:SHOWN] for line in self._tail).decode(errors="replace")

    def _read(self) -> None:
        while line := self._pipe.readline(LONGEST_LINE):
            self.bytes += len(line)
            if self._copy:
                self._copy.write(line)
            self._tail.append(line)
            # To parse each line of a flood would cost the honest clients their CPU.
            if not (line.startswith(b'{"time": "') and line.endswith(b"}\n")):
                self.broken += 1
            elif self.url is None or b"held up for" in line:
                self._note(line)

    def _note(self, line: bytes) -> None:
        record: dict[str, Any] = {}
        with suppress(ValueError):
            record = json.loads(line)
        if record.get("logger") != "greenroom" or "job_id" in record:
            return
        if record.get("event") == "serving":
            self.url = str(record["url"])
        if match := HELD_UP.search(str(record.get("message"))):
            self.hold_ups.append((datetime.fromisoformat(record["time"]).timestamp(), float(match[1])))
