"""Fork safety: finds threads that ``preload`` and the imports left in the zygote, and refuses forks beside them.

A fork copies only one thread. A lock that another thread holds stays locked in every child.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from ..system import proc
from .thread_origins import ThreadOrigins, is_restarted_by_its_library
from .thread_remedies import advice

__all__ = ["ExtraThread", "Permit", "extra_threads", "refusal", "remedies", "unexplained"]

_SERVICE_HINT = ". If a model cannot be loaded without threads, load it in @app.service, which all jobs can call"

_PATIENCE = 0.1
"""Seconds that a joined thread has to leave the process, not counting its waits for a CPU."""
_LONGEST_PATIENCE = 5.0
"""Seconds that a joined thread has to leave the process, including its waits for a CPU."""
_LOOK_AGAIN = 0.001


@dataclass(frozen=True, slots=True)
class Permit:
    """Threads that may exist at a fork, and the words for a refusal."""

    allowed: frozenset[str]
    """Names of threads that the app and the operator allow."""
    prewarm: str = "prewarm"
    """Name, in the app's framework, of the function that may start threads."""
    origins: ThreadOrigins = field(default_factory=ThreadOrigins)


def refusal(permit: Permit) -> str | None:
    """Return the reason why this process must not be forked now; ``None`` if it may be.

    The reason names each extra thread.
    """
    # The cheap check first, since this runs before every fork.
    if len(os.listdir("/proc/self/task")) == 1:
        return None
    extra = _remaining(permit.allowed)
    if not extra:
        return None
    described = Counter(thread.described(permit.origins) for thread in extra)
    named = [text if times == 1 else f"{times} times {text}" for text, times in described.items()]
    return (
        f"the zygote has {len(extra)} thread(s) besides its own: {', '.join(named)}. A fork copies only one "
        f"thread, and a lock of another thread stays locked in every child. {remedies(extra, ' '.join(described))}"
        f"Start threads in {permit.prewarm} instead, or set start_method to 'spawn', or name harmless threads in the "
        f"setting allow_threads"
    ) + (_SERVICE_HINT if permit.prewarm == "prewarm" else "")  # an integration's app registers no services


def remedies(extra: list[ExtraThread], described: str = "") -> str:
    """Return advice on the libraries of this process that may have started these threads."""
    return advice(described, has_native_threads=any(thread.is_native for thread in extra))


def unexplained(permit: Permit) -> list[tuple[int, str]]:
    """Return the id and native name of each thread that is not allowed, and whose origin is not known."""
    return [
        (thread.task, thread.names[-1]) for thread in _not_allowed(permit.allowed)
        if permit.origins.of(thread.task) is None
    ]  # fmt: skip


def _remaining(allowed: frozenset[str]) -> list[ExtraThread]:
    """Return the extra threads that do not end in time. Waits for a CPU do not count.

    A joined thread has left Python, but takes a moment longer to leave the process.
    """
    patience, give_up = _PATIENCE, time.monotonic() + _LONGEST_PATIENCE
    used: dict[int, float] = {}
    while (extra := _not_allowed(allowed)) and patience > 0 and time.monotonic() < give_up:
        used, before = _cpu_of_ready_threads(), used
        is_starved = any(before.get(task) == cpu for task, cpu in used.items())
        begin = time.monotonic()
        time.sleep(_LOOK_AGAIN)
        if not is_starved:
            # This thread may have had no CPU either. So a long sleep counts no more than two intervals.
            patience -= min(time.monotonic() - begin, 2 * _LOOK_AGAIN)
    return extra


def _cpu_of_ready_threads() -> dict[int, float]:
    """Return the CPU time, in seconds, of each other thread that is ready to run, by thread id."""
    found = {}
    for task in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):  # the thread has ended, or the kernel does not show it
            if task != os.getpid() and proc.stat(task).state == "R":
                found[task], _ = proc.schedule(task)
    return found


def _not_allowed(allowed: frozenset[str]) -> list[ExtraThread]:
    return [thread for thread in extra_threads() if not thread.is_restarted and allowed.isdisjoint(thread.names)]


@dataclass(frozen=True, slots=True)
class ExtraThread:
    """Thread beside the main one."""

    task: int
    names: tuple[str, ...]
    """Python name, and the native name if it is different."""
    is_restarted: bool
    """True if the thread's library starts it again in each child."""
    is_native: bool
    """True if C code has started the thread, so that Python does not know it."""

    def __str__(self) -> str:
        return " / ".join(self.names)

    def described(self, origins: ThreadOrigins) -> str:
        """Return the names of the thread, and its origin if that is known."""
        place = origins.of(self.task)
        return str(self) if place is None else f"{self} (started by {place})"


def extra_threads() -> list[ExtraThread]:
    """Return all threads but the main one."""
    threads = {thread.native_id: thread for thread in threading.enumerate()}
    found = []
    native_names = proc.thread_names()
    own_name = native_names.get(os.getpid())
    for task, native_name in native_names.items():
        if task != os.getpid():
            thread = threads.get(task)
            names = [thread.name] if thread is not None else []
            if native_name and not (names and native_name == own_name):  # unnamed threads inherit it
                names.append(native_name)
            is_restarted = thread is not None and is_restarted_by_its_library(thread)
            found.append(ExtraThread(task, tuple(dict.fromkeys(names)), is_restarted, is_native=thread is None))
    return found
