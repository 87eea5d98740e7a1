"""What is left when all calls are over: processes, zombies, file descriptors, shared memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from greenroom.system import proc

from .client import Client
from .worker import IDLE, Worker

__all__ = ["calm", "files_of", "grown", "left_in_memory", "zombies_below"]

CALM_SECONDS = 90.0
SETTLED_SECONDS = 15.0
RECORDINGS = f"/dev/shm/greenroom-{os.getuid()}/"
AT_REST = frozenset({"idle", "resident"})


async def calm(client: Client) -> str | None:
    """Wait until nothing but idle processes is there; returns what is there else, if that does not come to be."""
    give_up = time.monotonic() + CALM_SECONDS
    pool: dict[str, object] = {}
    while time.monotonic() < give_up:
        pool = await client.pool()
        states = Counter(each["state"] for each in pool.get("processes", ()))  # type: ignore[attr-defined]
        if states.keys() <= AT_REST and states["idle"] == IDLE and pool["jobs"] == 0:
            return None
        await asyncio.sleep(0.2)
    return f"the pool did not come to rest within {CALM_SECONDS:g} s: {pool}"


def files_of(pid: int) -> Counter[str]:
    """Count the open files of a process by kind. The flight recorder has a few, of names that differ in each life."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            kind, colon, _ = target.partition(":")
            if target.startswith(RECORDINGS):
                continue
            found[kind if colon and kind in ("socket", "pipe") else target] += 1
    return found


async def grown(worker: Worker, before: Counter[str]) -> Counter[str]:
    """Return the open files that the worker has more than ``before``, once closed connections are closed there, too."""
    give_up = time.monotonic() + SETTLED_SECONDS
    while (more := files_of(worker.pid) - before) and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    return more


async def zombies_below(worker: Worker) -> list[int]:
    """Return the dead that nobody reaps."""
    give_up = time.monotonic() + SETTLED_SECONDS
    while (found := _zombies(worker.pid)) and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    return found


def _zombies(pid: int) -> list[int]:
    found, border = [], [pid]
    while border:
        with suppress(OSError):
            children = proc.children(border.pop())
            border += children
            for child in children:
                with suppress(OSError):
                    found += [child] if proc.stat(child).state == "Z" else []
    return found


async def left_in_memory(worker: Worker) -> list[str]:
    """Return what jobs have left in /dev/shm, after the grace of those that are to remove it."""
    give_up = time.monotonic() + SETTLED_SECONDS
    while (found := sorted(Path("/dev/shm").glob(f"{worker.run}*"))) and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    return [path.name for path in found]
