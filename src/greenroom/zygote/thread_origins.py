"""Origins of the threads that appear while the app loads.

A fork loses these threads, and the error names their origins.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Any

from ..system import proc
from .app_modules import callers, line_of, module_name_of

__all__ = ["ThreadOrigins", "is_restarted_by_its_library"]

_PASSED_OVER = frozenset(
    {"threading", "concurrent", "importlib", "_frozen_importlib", "runpy", "__main__", "greenroom"}
)
"""Modules through which the start of a thread passes, but which do not decide on it."""


class ThreadOrigins:
    """Record of where threads were started, from :meth:`watching` on."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}

    def of(self, task: int) -> str | None:
        """Return the origin of a thread; ``None`` if it is unknown.

        The origin is the module and the line that started the thread, or the extension module whose import did.
        """
        return self._places.get(task)

    def learn(self, unknown: Iterable[tuple[int, str]], found: Sequence[tuple[str, str]]) -> None:
        """Take over the origins that a second load has found. The two loads share only the names of the threads."""
        places: dict[str, deque[str]] = {}
        for name, place in found:
            places.setdefault(name, deque()).append(place)
        only = {place for _, place in found}
        for task, name in unknown:
            if places.get(name):
                self._places[task] = places[name].popleft()
            elif len(only) == 1:
                self._places[task] = next(iter(only))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the origin of each thread that is started within this context."""
        start, create = threading.Thread.start, ExtensionFileLoader.create_module

        def start_and_note(thread: threading.Thread) -> None:
            start(thread)
            if thread.native_id is not None:
                self._places[thread.native_id] = _place()

        def create_and_note(loader: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType:
            before = proc.thread_names().keys()
            module = create(loader, spec)
            for task in proc.thread_names().keys() - before:
                self._places.setdefault(task, f"the import of {spec.name}")
            return module

        _patch(threading.Thread, "start", start_and_note)
        _patch(ExtensionFileLoader, "create_module", create_and_note)
        try:
            yield
        finally:
            _patch(threading.Thread, "start", start)
            _patch(ExtensionFileLoader, "create_module", create)


def is_restarted_by_its_library(thread: threading.Thread) -> bool:
    """Return whether each child gets a new thread, with new locks, as from OpenTelemetry's batch processors.

    The object that runs in the thread decides, since any thread can have the same name.
    """
    owner = getattr(getattr(thread, "_target", None), "__self__", None)
    return type(owner).__module__.startswith("opentelemetry.") and hasattr(owner, "_at_fork_reinit")


def _patch(owner: Any, name: str, function: Any) -> None:
    setattr(owner, name, function)


def _place() -> str:
    """Return the nearest module that asked for the thread, and the app's line that led there."""
    frames = [frame for frame in callers() if module_name_of(frame).partition(".")[0] not in _PASSED_OVER]
    if not frames:
        return "an unknown module"
    nearest, outermost = frames[0], frames[-1]
    through = "" if outermost is nearest else f", by way of {line_of(outermost)}"
    return f"module {module_name_of(nearest)} ({line_of(nearest)}{through})"
