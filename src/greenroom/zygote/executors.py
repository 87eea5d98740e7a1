"""Executors (``ProcessPoolExecutor``) that preload has made, and that have not started a process yet.

The pipes of such an executor exist already. Jobs that shared the pipes would get the results of each other's work.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

__all__ = ["Executors"]

_CONNECTIONS = ("_call_queue", "_result_queue", "_executor_manager_thread_wakeup")


class Executors:
    """Unused executors of the zygote, found when the app has loaded.

    The constructor removes their pipes in the zygote, and :meth:`renew` makes new ones in each child.
    """

    def __init__(self) -> None:
        module: Any = sys.modules.get("concurrent.futures.process")
        self._class: Any = getattr(module, "ProcessPoolExecutor", None)
        self._found: list[weakref.ref[Any]] = []
        if self._class is None:
            return
        # By type(): an object's __class__ may be code of the app.
        for executor in [each for each in gc.get_objects() if issubclass(type(each), self._class)]:
            has_pipes = getattr(executor, "_call_queue", None) is not None  # None after a shutdown
            if has_pipes and executor._executor_manager_thread is None:
                self._found.append(weakref.ref(executor))
                for name in _CONNECTIONS:
                    setattr(executor, name, None)

    def renew(self) -> None:
        """Give each executor that still exists new pipes. Called in a child."""
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
