"""Calls an integration when a module that concerns it is imported while the zygote loads the app."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from .loader import INTEGRATIONS

__all__ = ["watched_imports"]

_WATCHERS = {module: watcher for each in INTEGRATIONS for module, watcher in each.watchers.items()}


@contextmanager
def watched_imports() -> Iterator[None]:
    """Watch imports until the app has loaded. Nothing of an integration is imported on suspicion."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for watcher in finder.watchers:
            watcher.loaded()


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.watchers: list[Any] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _WATCHERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._watch(spec.loader, _WATCHERS[fullname])
        return spec

    def _watch(self, loader: Any, watcher_name: str) -> None:
        exec_module = loader.exec_module

        def exec_and_tell(module: ModuleType) -> None:
            exec_module(module)
            watcher: Any = importlib.import_module(watcher_name, __package__)
            self.watchers.append(watcher)
            watcher.imported(module)

        loader.exec_module = exec_and_tell
