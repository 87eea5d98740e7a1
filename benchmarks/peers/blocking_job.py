"""The benchmark's image and session for pools that call a plain function."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import images
from benchmarks.images import session

image = images.current()


def initialize(fifo: str) -> None:
    image.preload()  # loaded already where a forkserver could share it
    image.prewarm()
    session.report(fifo, f"warm 0 {os.getpid()} {time.monotonic_ns()}")


def run(metadata: Mapping[str, Any]) -> None:
    session.run_blocking(metadata)
