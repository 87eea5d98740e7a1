"""Exit hooks and finalizers: those of the zygote are run once, at its own end, and not by the first session that ends.

What ``preload`` has made is shared: a temporary folder, a process that helps. A session must not clean it up. What a
library has registered to flush at exit, however, has something to flush in each process.
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
"""Seconds that the zygote's exit hooks may take; less than the supervisor waits for its end."""

_OWN_REGISTRIES = frozenset({"logging", "weakref", "multiprocessing.util"})
"""Modules of the standard library whose hooks each process needs for what it makes itself."""

_Hook = Callable[..., object]


class ExitHooks:
    """Those that were registered while the app was loaded."""

    def __init__(self) -> None:
        self._registered: list[_Hook] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
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
        """In a process: forget those of the app and of what it called; libraries flush what this process has made."""
        for fn in self._registered:
            if _is_zygotes(fn):
                atexit.unregister(fn)
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        multiprocessing: Any = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:  # as in the processes that it forks itself
            multiprocessing._finalizer_registry.clear()
            sys.modules["multiprocessing.process"]._children.clear()


def note_death(pid: int, exit_code: int) -> None:
    """Tell ``multiprocessing`` of a process of its that the zygote has reaped: it would signal the pid at the end."""
    for process in _processes():
        if process._popen.pid == pid:
            process._popen.returncode = exit_code


def run_in_zygote(*, children_are_gone: bool = False) -> None:
    """Run them all, and finish what is open, under an alarm that ends this process where one of them hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    for process in _processes():
        if children_are_gone:
            note_death(process._popen.pid, -signal.SIGKILL)
        elif not process.daemon:
            process.terminate()  # there is a hook that waits for it to end by itself
    atexit._run_exitfuncs()
    gc.unfreeze()  # what preload has made is to be seen
    open_objects.finish()
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and tracker._resource_tracker._fd is not None:
        os.close(tracker._resource_tracker._fd)  # there is nothing more to track
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
