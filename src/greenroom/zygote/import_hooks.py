"""Import hooks: call an integration's watcher at the import of a module, while an app loads or its script runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ..integrations import Watchers, installed

__all__ = ["BEFORE_FORK", "HANDING_OVER", "LOADING", "change_defaults", "watched_imports"]


def _all(tables: Iterable[Watchers]) -> Watchers:
    return {module: watcher for table in tables for module, watcher in table.items()}


LOADING = _all(each.loading for each in installed())
BEFORE_FORK = LOADING | _all(each.before_fork for each in installed())
HANDING_OVER = _all(each.handing_over for each in installed())

_OTHER_DEFAULTS: Watchers = {"onnxruntime": ".onnxruntime_threads", "tqdm.std": ".tqdm_locks"}


def change_defaults() -> None:
    """Watch for imports of libraries that get other defaults, for the life of this process and of its children."""
    sys.meta_path.insert(0, _Finder(_OTHER_DEFAULTS))


@contextmanager
def watched_imports(watched: Watchers) -> Iterator[None]:
    """Watch imports until the app has loaded. A watcher is imported only after the module that it watches."""
    finder = _Finder(watched)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for watcher in finder.watchers:
            watcher.loaded()


class _Finder:  # no subclass of importlib.abc's, which would import tempfile and more in every zygote
    def __init__(self, watched: Watchers) -> None:
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

        def exec_and_notify(module: ModuleType) -> None:
            exec_module(module)
            watcher: Any = importlib.import_module(watcher_name, __package__)
            self.watchers.append(watcher)
            watcher.imported(module)

        loader.exec_module = exec_and_notify
