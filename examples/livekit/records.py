"""What an agent leaves behind of each call: one line of JSON, in the log and, if `RECORDS` names a file, in that."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

__all__ = ["keep"]

logger = logging.getLogger("records")


def keep(room: str, record: dict[str, Any]) -> None:
    line = json.dumps({"room": room, **record})
    logger.info("call ended: %s", line)
    if path := os.environ.get("RECORDS"):
        # One write to a file that was opened for appending: lines of calls that end at once do not mix.
        with open(path, "a", encoding="utf-8", buffering=1) as file:
            file.write(line + "\n")
