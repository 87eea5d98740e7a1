"""What ``preload`` and the imports left behind in the zygote that a fork would multiply or break."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from ..system import proc

__all__ = ["extra_threads", "inherited_fd_warnings", "open_fds", "refusal"]

_REMEDIES = {
    "onnxruntime": "set ORT_DISABLE_TELEMETRY=1 before it is imported (Greenroom's default)",
    "OpenBLAS": "set OPENBLAS_NUM_THREADS=1 before numpy is imported (Greenroom's default)",
}


_PATIENCE = 0.1
"""Seconds that a joined thread has to leave the process, without its waits for a CPU."""
_LONGEST_PATIENCE = 5.0
"""Seconds that it has with those waits."""
_LOOK_AGAIN = 0.001


def refusal(allowed: Iterable[str]) -> str | None:
    """Why this process must not be forked now, naming each extra thread; ``None`` if it may be."""
    # The cheap question first: it is asked before every fork.
    if len(os.listdir("/proc/self/task")) == 1:
        return None
    extra = _remaining(allowed)
    if not extra:
        return None
    return (
        f"the zygote has {len(extra)} thread(s) besides its own: {', '.join(extra)}. A fork copies only one "
        f"thread, and a lock that another one holds stays locked in every child. Start threads in prewarm "
        f"instead, or keep the library from starting them at import ({'; '.join(_REMEDIES.values())}), or "
        f"name them in App(allow_threads=[...]) if you know that they are harmless"
    )


def _remaining(allowed: Iterable[str]) -> list[str]:
    """Return the extra threads that do not end in time.

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


def _not_allowed(allowed: Iterable[str]) -> list[str]:
    return [name for name in extra_threads() if not set(name.split(" / ")) & set(allowed)]


def extra_threads() -> list[str]:
    """Each thread but the main one, by its Python name and its native one where they differ."""
    python_names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = []
    for task, native_name in proc.thread_names().items():
        if task != os.getpid():
            python_name = python_names.get(task)
            names = [name for name in (python_name, native_name) if name]
            found.append(" / ".join(dict.fromkeys(names)))
    return found


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name))}


def _is_open(fd: int) -> bool:
    """Not the fd of the listing itself, which is closed by now, and whose number the next one gets."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def inherited_fd_warnings(before: set[int]) -> list[str]:
    """A warning for each socket, pipe and the like opened since: all children would share it."""
    warnings = []
    for fd in sorted(open_fds() - before):
        target = _describe(fd)
        if target is not None:
            warnings.append(
                f"preload left fd {fd} open ({target}); every process shares it with every other: "
                f"open it in prewarm instead"
            )
    return warnings


def _describe(fd: int) -> str | None:
    """What an fd is, if sharing it is a danger; ``None`` for plain files, directories and devices."""
    try:
        mode = os.fstat(fd).st_mode
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None  # closed since, as is the fd of the listing itself
    dangerous = stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) or target.startswith("anon_inode:[event")
    return target if dangerous else None
