"""Stacks of native crashes: the Python stacks of a process that SIGSEGV, SIGABRT or the like ends.

``faulthandler`` writes them in a C-level signal handler. Then it restores the handler before its own, and raises the
signal again, so the process ends as it would have ended without it.

Its handlers are installed before any code of the app runs. A library that installs handlers later then gets the
signals first, and passes on only real crashes. Some runtimes need this, because SIGSEGV is no crash in their code. A
child only changes the file, which touches no handler.

A zygote, a script, a service and a copy that the app forks write to stderr, which is in the log. A child writes
behind its heartbeat page, in memory that the supervisor can read after the child's death. The size of that memory is
sealed, so the kernel cuts a long text.

The app may choose another file, or none: then its choice holds.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import weakref
from typing import Any

__all__ = ["LONGEST", "MARK", "MAX_BYTES", "enable", "stacks_in", "write_into"]

MAX_BYTES = 256 * 1024
"""Most bytes that one child can write. The thread that crashed may come last, behind dozens of others."""
LONGEST = 64 * 1024
"""Most characters that are kept of it, from the thread that crashed on."""
MARK = "Fatal Python error: "
"""Beginning of each text of ``faulthandler`` about a crash, and of the interpreter about a fatal error of its own."""
_STDERR = 2


class _Target:
    """Target of ours. ``faulthandler`` keeps the object until it gets another target, and nobody else keeps it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def flush(self) -> None:
        """Do nothing: ``faulthandler`` calls this, and there is no buffer."""


_current: weakref.ref[_Target] | None = None
"""Our target. It is dead if the app has chosen another one."""


def enable() -> None:
    """Have a native crash of this process write its stacks to stderr.

    Does nothing if the user has enabled this already (``PYTHONFAULTHANDLER``, ``-X dev``).
    """
    if not faulthandler.is_enabled():
        _point_to(_STDERR)


def write_into(fd: int) -> bool:
    """Have a native crash of this process write its stacks into ``fd``, at its offset.

    Return false, and do nothing, if :func:`enable` did nothing, or the app has made another choice. Copies that the app
    forks write to stderr: a copy's crash is not the crash of this process.
    """
    if _current is None or _current() is None:
        return False
    _point_to(fd)
    os.register_at_fork(after_in_child=_leave)
    return True


def _leave() -> None:
    if _current is not None and _current() is not None:
        _point_to(_STDERR)


def _point_to(fd: int) -> None:
    global _current
    target = _Target(fd)
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        # The C stack would load a library in the handler, which can hang if the crash has left malloc's lock held.
        options["c_stack"] = False
    faulthandler.enable(file=target, all_threads=True, **options)
    _current = weakref.ref(target)


def stacks_in(written: bytes) -> str | None:
    """Return the stacks of the last crash in the memory of a child, the thread that crashed first.

    Return ``None`` if there are none.
    """
    text = written.partition(b"\0")[0].decode("utf-8", "replace")
    _, mark, stacks = text.rpartition(MARK)
    return (mark + _with_current_first(stacks))[:LONGEST] if mark else None


def _with_current_first(stacks: str) -> str:
    """Return the stacks with those of the current thread in front of other threads. A blank line ends each thread."""
    before, current, rest = stacks.partition("\n\nCurrent thread ")
    if not current:
        return stacks
    cause, _, others = before.partition("\n\n")
    own, _, after = rest.partition("\n\n")
    parts = [part.strip("\n") for part in (own, others, after)]
    return cause + current + "\n\n".join(filter(None, parts)) + "\n"
