"""Small helpers for tests that break things for real."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from greenroom import ProcessPool
from greenroom.pool import PoolStats
from greenroom.system import proc

__all__ = [
    "CERTIFICATE",
    "DEADLINE",
    "STATS",
    "Kept",
    "eventually",
    "idle_pids",
    "is_gone",
    "is_zombie",
    "kill",
    "listening",
    "wait_for_exit",
    "wait_for_file",
    "zygote_pid",
]

CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""The one authority that the tests' processes know. It has signed nothing."""

DEADLINE = 60.0
"""Seconds: generous, because it bounds a failure and measures nothing."""


async def eventually(condition: Callable[[], object], what: str = "", deadline: float = DEADLINE) -> None:
    """Wait for something that has no event of its own to be true."""
    give_up = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < give_up, f"it did not come to be: {what or condition}"
        await asyncio.sleep(0.005)


def idle_pids(pool: ProcessPool) -> list[int]:
    return [process.pid for process in pool.processes if process.state == "idle" and process.pid]


def zygote_pid(pool: ProcessPool) -> int:
    pid = pool.stats().zygote_pid
    assert pid is not None
    return pid


def is_zombie(pid: int) -> bool:
    """Whether a process is dead and not reaped. One that is reaped in this moment is no zombie any more."""
    try:
        return proc.stat(pid).state == "Z"
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    """Whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


async def wait_for_exit(pidfd: int, deadline: float = DEADLINE) -> None:
    """Wait for the death of a process that may be anybody's child; closes the pidfd."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    await eventually(lambda: poll.poll(0), "death of a process", deadline)
    os.close(pidfd)


async def wait_for_file(path: Path, deadline: float = DEADLINE) -> str:
    """Wait until another process has written a file, and return its text."""
    await eventually(lambda: path.exists() and path.stat().st_size > 0, f"file {path}", deadline)
    return path.read_text()


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    os.kill(pid, signum)


class Kept(logging.Handler):
    """Keeps every record."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, text: str) -> list[logging.LogRecord]:
        """Return the records with a text in their message."""
        return [record for record in self.records if text in record.getMessage()]

    def of_event(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of each record of an event."""
        return [vars(record) for record in self.records if vars(record).get("event") == event]

    def lines(self, stream: str = "stdout") -> list[str]:
        """Return what jobs have written to a stream."""
        return [record.getMessage() for record in self.records if vars(record).get("stream") == stream]


H = TypeVar("H", bound=logging.Handler)


@contextmanager
def listening(handler: H, name: str) -> Iterator[H]:
    """Have a handler hear every record of a logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


STATS = PoolStats(
    ready=True,
    not_ready_reason=None,
    idle=3,
    warming=0,
    jobs=0,
    waiting=0,
    expected_wait=0.0,
    idle_target=3,
    generation=1,
    zygote_pid=1,
    zygote_restarts=0,
    breaker_open=False,
    breaker_cause=None,
    session_mb=None,
    expected_growth_mb=0.0,
)
"""Of a pool at rest, of which no process was measured yet."""
