"""Executors of processes that preload has made, and that have not started any yet.

Their pipes are there already. Sessions that shared them would get the results of each other's work.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

__all__ = ["Executors"]

_CONNECTIONS = ("_call_queue", "_result_queue", "_executor_manager_thread_wakeup")


class Executors:
    """The zygote's; found when the app has loaded. They lose their pipes here, and each process gives them new ones."""

    def __init__(self) -> None:
        module: Any = sys.modules.get("concurrent.futures.process")
        self._class: Any = getattr(module, "ProcessPoolExecutor", None)
        self._found: list[weakref.ref[Any]] = []
        if self._class is None:
            return
        # By type(): what an object says of its class may be code of the app's.
        for executor in [each for each in gc.get_objects() if issubclass(type(each), self._class)]:
            has_pipes = getattr(executor, "_call_queue", None) is not None  # and was not shut down
            if has_pipes and executor._executor_manager_thread is None:
                self._found.append(weakref.ref(executor))
                for name in _CONNECTIONS:
                    setattr(executor, name, None)

    def renew(self) -> None:
        for found in self._found:
            executor = found()
            if executor is not None:
                self._class.__init__(
                    executor,
                    executor._max_workers,
                    executor._mp_context,
                    executor._initializer,
                    executor._initargs,
                    max_tasks_per_child=executor._max_tasks_per_child,
                )
