"""Exit hooks and finalizers of the zygote: they run once, at the zygote's own end, and not in its children.

All children share the things that ``preload`` has made, such as a temporary folder or a helper process. A child must
not remove these things. But a library's hook that flushes data at exit must run in each process, since each has its own
data.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import open_objects
from .app_modules import is_of_app

__all__ = ["LONGEST", "ExitHooks", "note_death", "run_in_zygote"]

LONGEST = 2.0
"""Seconds that the zygote's exit hooks may take. The supervisor waits longer for the zygote's end."""

_OWN_REGISTRIES = frozenset({"logging", "weakref", "multiprocessing.util"})
"""Modules of the standard library whose hooks stay in each process, for the objects that the process itself makes."""

_Hook = Callable[..., object]


class ExitHooks:
    """Exit hooks that were registered while the app was loaded."""

    def __init__(self) -> None:
        self._registered: list[_Hook] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the exit hooks that are registered within this context."""
        register, unregister = atexit.register, atexit.unregister

        def note(fn: _Hook, /, *arguments: Any, **named: Any) -> _Hook:
            self._registered.append(fn)
            return register(fn, *arguments, **named)

        def forget(fn: _Hook, /) -> None:
            self._registered = [each for each in self._registered if each != fn]
            unregister(fn)

        atexit.register, atexit.unregister = note, forget  # type: ignore[assignment]
        try:
            yield
        finally:
            atexit.register, atexit.unregister = register, unregister

    def leave_to_zygote(self) -> None:
        """Unregister the zygote's hooks in a forked process, and clear its finalizers.

        The zygote's hooks are those of the app, and those of the standard library that the app has registered. Hooks of
        other libraries stay, since they flush data of this process.
        """
        for fn in self._registered:
            if _is_zygotes(fn):
                atexit.unregister(fn)
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        multiprocessing: Any = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:  # multiprocessing does the same in the processes that it forks
            multiprocessing._finalizer_registry.clear()
            sys.modules["multiprocessing.process"]._children.clear()


def note_death(pid: int, exit_code: int) -> None:
    """Record the death of a ``multiprocessing`` process that the zygote has reaped.

    Otherwise ``multiprocessing`` would send a signal to its pid at the zygote's end.
    """
    for process in _processes():
        if process._popen.pid == pid:
            process._popen.returncode = exit_code


def run_in_zygote(*, children_are_gone: bool = False) -> None:
    """Run all exit hooks, and finish open files. An alarm ends this process if a hook hangs.

    ``children_are_gone``: the processes that the app has started were killed before.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    for process in _processes():
        if children_are_gone:
            note_death(process._popen.pid, -signal.SIGKILL)
        elif not process.daemon:
            process.terminate()  # an exit hook of multiprocessing waits for its end
    atexit._run_exitfuncs()
    gc.unfreeze()  # the collector lists no frozen objects, and those of preload are frozen
    open_objects.finish()
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and tracker._resource_tracker._fd is not None:
        os.close(tracker._resource_tracker._fd)  # nothing is left to track
        tracker._resource_tracker._fd = None
    signal.setitimer(signal.ITIMER_REAL, 0)


def _processes() -> list[Any]:
    """Return the processes that ``multiprocessing`` has started here."""
    module: Any = sys.modules.get("multiprocessing.process")
    return [] if module is None else list(module._children)


def _is_zygotes(fn: _Hook) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__module__", None) or type(getattr(fn, "__self__", None)).__module__
    if name in _OWN_REGISTRIES:
        return False
    return is_of_app(name) or name.partition(".")[0] in sys.stdlib_module_names
