"""Calls an integration when a module that concerns it is imported while an app is loaded, or its script is run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["BEFORE_FORK", "HANDING_OVER", "LOADING", "watched_imports"]

LOADING = {
    "livekit.agents.cli.cli": "..integrations.livekit.unguarded",
    "livekit.agents.worker": "..integrations.livekit.unguarded",
}
"""Watched wherever an app is loaded. By the name of the module: the one with ``imported(module)``, called then, and
``loaded()``, called at the end."""
BEFORE_FORK = {**LOADING, "livekit.rtc._ffi_client": "..integrations.livekit.runtime"}
"""Watched in a zygote."""
HANDING_OVER = {
    "livekit.agents.cli.cli": "..integrations.livekit.handover",
    "livekit.agents.worker": "..integrations.livekit.handover",
}
"""Watched in the process of a script."""


@contextmanager
def watched_imports(watched: Mapping[str, str]) -> Iterator[None]:
    """Watch imports until the app has loaded. Nothing of an integration is imported on suspicion."""
    finder = _Finder(watched)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for watcher in finder.watchers:
            watcher.loaded()


class _Finder(MetaPathFinder):
    def __init__(self, watched: Mapping[str, str]) -> None:
        self.watchers: list[Any] = []
        self._watched = watched

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._watched:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._watch(spec.loader, self._watched[fullname])
        return spec

    def _watch(self, loader: Any, watcher_name: str) -> None:
        exec_module = loader.exec_module

        def exec_and_tell(module: ModuleType) -> None:
            exec_module(module)
            watcher: Any = importlib.import_module(watcher_name, __package__)
            self.watchers.append(watcher)
            watcher.imported(module)

        loader.exec_module = exec_and_tell
