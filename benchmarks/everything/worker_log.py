"""Reads the worker's log, as JSON, while it is written."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

__all__ = ["WorkerLog"]

HELD_UP = re.compile(r"the supervisor was held up for ([0-9.]+) s")
TELLING = (b'"serving"', b"registered as AW_", b"held up for", b"Traceback")
OWN_CODE = re.compile(r"Traceback \(most recent call last\)(?s:.*)/greenroom/(pool|server|system|wire)/")
"""A traceback of the worker's own, and not of the app, that it passes on."""


class WorkerLog:
    """A thread that reads until nobody can write any more; the whole log is appended to a file."""

    def __init__(self, pipe: IO[bytes], copy: Path, hold_ups: list[tuple[float, float]]) -> None:
        self.is_serving = False
        self.is_registered = False
        self.tracebacks: list[str] = []
        """What the worker itself has raised, and logged."""
        self._hold_ups = hold_ups
        self._tail: deque[bytes] = deque(maxlen=30)
        self._pipe, self._copy = pipe, copy.open("ab")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(5)
        self._pipe.close()
        self._copy.close()

    @property
    def tail(self) -> str:
        return b"".join(line[:600] for line in self._tail).decode(errors="replace")

    def _read(self) -> None:
        for line in self._pipe:
            self._copy.write(line)
            self._copy.flush()
            self._tail.append(line)
            if any(text in line for text in TELLING):
                self._note(line)

    def _note(self, line: bytes) -> None:
        record: dict[str, Any] = {}
        with suppress(ValueError):
            record = json.loads(line)
        logger, message = str(record.get("logger", "")), str(record.get("message"))
        if not logger.startswith(("greenroom", "asyncio", "aiohttp")) or record.get("process_id"):
            return  # of a session, or of a zygote
        self.is_serving |= record.get("event") == "serving"
        self.is_registered |= "registered as AW_" in message
        if match := HELD_UP.search(message):
            self._hold_ups.append((datetime.fromisoformat(record["time"]).timestamp(), float(match[1])))
        elif OWN_CODE.search(message):
            self.tracebacks.append(message[:4000])
