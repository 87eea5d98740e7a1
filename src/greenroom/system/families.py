"""Families: a session's process, and all processes that it has started, in any process group or session.

A process with a living parent in a family belongs to that family. The process group and the mark assign an
orphan to its family (:mod:`greenroom.system.mark`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from . import mark, proc

__all__ = ["Member", "end", "of"]


class Member(NamedTuple):
    """Process, with its start in clock ticks. A later process with the same pid has another start."""

    pid: int
    started: int


def of(owners: Collection[int], token: str) -> dict[int, list[Member]]:
    """Return the family of each of these processes of a pool. This process must be the pool's supervisor.

    Reads ``/proc`` for every process of the machine, at some 10 µs each.
    """
    found = _all_processes()
    known: dict[int, int | None] = {owner: owner for owner in owners}
    below = set(owners)
    for pid in found:
        _find_owner(pid, found, known, below, partial(_owner_of_orphan, found, owners, token))
    families: dict[int, list[Member]] = {owner: [] for owner in owners}
    for pid, owner in known.items():
        if owner is not None and pid in found:
            families[owner].append(Member(pid, found[pid].started))
    return families


def end(owner: Member, family: list[Member], token: str, seconds: float) -> int:
    """Kill a family, and the processes that it forks meanwhile, within ``seconds``. Return the number of kills.

    Looks for the whole family again after each round, until none is left. A search layer by layer, as orphans are
    adopted, would be slower than the family's forks.
    """
    give_up, killed = time.monotonic() + seconds, 0
    while family and time.monotonic() < give_up:
        killed += sum(map(_kill, family))
        if _started(owner.pid) not in (owner.started, None):
            break  # another process has the owner's pid by now: spare its family
        family = [each for each in of([owner.pid], token)[owner.pid] if not _is_dead(each.pid)]
    return killed


def _all_processes() -> dict[int, proc.Stat]:
    found = {}
    for pid in proc.pids():
        with suppress(OSError):  # the process has ended
            found[pid] = proc.stat(pid)
    return found


def _find_owner(
    pid: int,
    found: dict[int, proc.Stat],
    known: dict[int, int | None],
    below: set[int],
    of_orphan: Callable[[int], int | None],
) -> None:
    """Find the owner of a process by its ancestors. Adds the process and these ancestors to ``known``.

    The supervisor or a zygote may have adopted the process: then ``of_orphan`` finds the owner. ``below`` holds the
    processes below this one. All other processes have no owner.
    """
    line = []
    while pid not in known and pid in found and pid != os.getpid():
        line.append(pid)
        pid = found[pid].ppid
    owner, is_below = known.get(pid), pid == os.getpid() or pid in below
    for each in reversed(line):
        if is_below:
            below.add(each)
            owner = owner if owner is not None else of_orphan(each)
        known[each] = owner


def _owner_of_orphan(found: dict[int, proc.Stat], owners: Collection[int], token: str, pid: int) -> int | None:
    with suppress(OSError):  # the process has ended
        # Before the group: a process can join the group of another session, and cannot change its mark.
        owner = mark.owner_of(pid, token)
        if owner is not None:
            return owner if owner in owners else None
    return found[pid].group if found[pid].group in owners else None


def _kill(member: Member) -> bool:
    with suppress(OSError):  # the process has ended, or is a set-uid program that this user cannot signal
        if proc.stat(member.pid).started == member.started:
            os.kill(member.pid, signal.SIGKILL)
            return True
    return False


def _started(pid: int) -> int | None:
    with suppress(OSError):  # the process has ended
        return proc.stat(pid).started
    return None


def _is_dead(pid: int) -> bool:
    try:
        return proc.stat(pid).state in "ZX"
    except OSError:
        return True
