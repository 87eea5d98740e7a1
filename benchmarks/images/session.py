"""The session that every peer runs: note the time of entry, tell the driver, stay, end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any


def enter(metadata: Mapping[str, Any]) -> None:
    """Report when the entrypoint was entered. CLOCK_MONOTONIC is one clock for all processes on Linux."""
    entered = time.monotonic_ns()
    report(metadata["fifo"], f"entered {metadata['id']} {os.getpid()} {entered}")


def report(fifo: str, text: str) -> None:
    # One write below PIPE_BUF is atomic: lines of many processes do not mix.
    fd = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


async def run(metadata: Mapping[str, Any]) -> None:
    enter(metadata)
    if metadata["hold"]:
        await asyncio.sleep(metadata["hold"])


def run_blocking(metadata: Mapping[str, Any]) -> None:
    enter(metadata)
    if metadata["hold"]:
        time.sleep(metadata["hold"])
