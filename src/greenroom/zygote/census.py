"""Threads that ``preload`` and the imports left behind in the zygote: a fork would break what they hold."""

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

_SERVICE_HINT = ". A model that cannot be loaded without threads has its place in @app.service, which all sessions call"

_PATIENCE = 0.1
"""Seconds that a joined thread has to leave the process, without its waits for a CPU."""
_LONGEST_PATIENCE = 5.0
"""Seconds that it has with those waits."""
_LOOK_AGAIN = 0.001


@dataclass(frozen=True, slots=True)
class Permit:
    """The threads that may be there at a fork, and what to say of others."""

    allowed: frozenset[str]
    """Names: the app's, and the operator's."""
    prewarm: str = "prewarm"
    """What the app calls the function in which a thread may be started."""
    origins: ThreadOrigins = field(default_factory=ThreadOrigins)


def refusal(permit: Permit) -> str | None:
    """Why this process must not be forked now, naming each extra thread; ``None`` if it may be."""
    # The cheap question first: it is asked before every fork.
    if len(os.listdir("/proc/self/task")) == 1:
        return None
    extra = _remaining(permit.allowed)
    if not extra:
        return None
    told = Counter(thread.told(permit.origins) for thread in extra)
    named = [text if times == 1 else f"{times} times {text}" for text, times in told.items()]
    return (
        f"the zygote has {len(extra)} thread(s) besides its own: {', '.join(named)}. A fork copies only one "
        f"thread, and a lock that another one holds stays locked in every child. {remedies(extra, ' '.join(told))}"
        f"Start threads in {permit.prewarm} instead, or set start_method to 'spawn', or name them in the setting "
        f"allow_threads if you know that they are harmless"
    ) + (_SERVICE_HINT if permit.prewarm == "prewarm" else "")  # an integration's app registers no services


def remedies(extra: list[ExtraThread], told: str = "") -> str:
    """Return what helps with the libraries that are here, as far as these threads can be theirs."""
    return advice(told, has_native_threads=any(thread.is_native for thread in extra))


def unexplained(permit: Permit) -> list[tuple[int, str]]:
    """Return id and native name of each thread that is not allowed, and of which nobody knows who has started it."""
    return [
        (thread.task, thread.names[-1]) for thread in _not_allowed(permit.allowed)
        if permit.origins.of(thread.task) is None
    ]  # fmt: skip


def _remaining(allowed: frozenset[str]) -> list[ExtraThread]:
    """Return the extra threads that do not end in time. The wait for a CPU does not count.

    A joined thread has left Python, but takes a moment more to leave the process.
    """
    patience, give_up = _PATIENCE, time.monotonic() + _LONGEST_PATIENCE
    used: dict[int, float] = {}
    while (extra := _not_allowed(allowed)) and patience > 0 and time.monotonic() < give_up:
        used, before = _cpu_of_ready_threads(), used
        is_starved = any(before.get(task) == cpu for task, cpu in used.items())
        begin = time.monotonic()
        time.sleep(_LOOK_AGAIN)
        if not is_starved:
            # This thread may have had no CPU either: then it did not see the others go.
            patience -= min(time.monotonic() - begin, 2 * _LOOK_AGAIN)
    return extra


def _cpu_of_ready_threads() -> dict[int, float]:
    """The CPU time of each other thread that is ready to run, by thread id."""
    found = {}
    for task in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):  # it has ended; or a kernel that does not tell
            if task != os.getpid() and proc.stat(task).state == "R":
                found[task], _ = proc.schedule(task)
    return found


def _not_allowed(allowed: frozenset[str]) -> list[ExtraThread]:
    return [thread for thread in extra_threads() if not thread.is_restarted and allowed.isdisjoint(thread.names)]


@dataclass(frozen=True, slots=True)
class ExtraThread:
    """A thread beside the main one."""

    task: int
    names: tuple[str, ...]
    """Its Python name, and its native one if that is another."""
    is_restarted: bool
    """By its library, in each child."""
    is_native: bool
    """Started by C code: Python does not know it."""

    def __str__(self) -> str:
        return " / ".join(self.names)

    def told(self, origins: ThreadOrigins) -> str:
        """Its names, and who has started it, where that is known."""
        place = origins.of(self.task)
        return str(self) if place is None else f"{self} (started by {place})"


def extra_threads() -> list[ExtraThread]:
    """Each thread but the main one."""
    threads = {thread.native_id: thread for thread in threading.enumerate()}
    found = []
    native_names = proc.thread_names()
    own_name = native_names.get(os.getpid())
    for task, native_name in native_names.items():
        if task != os.getpid():
            thread = threads.get(task)
            names = [thread.name] if thread is not None else []
            if native_name and not (names and native_name == own_name):  # which those have that were given none
                names.append(native_name)
            is_restarted = thread is not None and is_restarted_by_its_library(thread)
            found.append(ExtraThread(task, tuple(dict.fromkeys(names)), is_restarted, is_native=thread is None))
    return found
