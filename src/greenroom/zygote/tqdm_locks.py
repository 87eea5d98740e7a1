"""Progress bars of tqdm in ``preload``: they start no thread, and children do not share their lock.

Most code that downloads a model shows such a bar. The monitor of tqdm is a thread, and a zygote with that thread is
refused. The lock of tqdm is one of ``multiprocessing``. A child that is killed while it draws would keep the lock. Then
the bars of all other children, and so their work, would stop.
"""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

__all__ = ["imported", "loaded", "lock_of_all", "renew"]

_std: Any = None
_interval: object = None


def imported(module: ModuleType) -> None:
    """Keep tqdm from starting its monitor. ``module`` is ``tqdm.std``, which was just imported."""
    global _std, _interval
    with suppress(AttributeError):  # a release of tqdm that looks different keeps its defaults
        _interval = module.tqdm.monitor_interval
        module.tqdm.monitor_interval = 0
        _std = module


def loaded() -> None:
    """Do nothing: the watcher has no work after the load."""


def lock_of_all() -> object:
    """Return the lock that all children would share; ``None`` if there is none."""
    return getattr(getattr(_std, "TqdmDefaultWriteLock", None), "mp_lock", None)


def renew() -> None:
    """Remove the shared lock in a child, and allow monitors again. The next bar makes a new lock."""
    if _std is None:
        return
    if _std.tqdm.monitor_interval == 0:
        _std.tqdm.monitor_interval = _interval
    present: Any = getattr(_std.tqdm, "_lock", None)
    shared = lock_of_all()
    if shared is not None and isinstance(getattr(present, "locks", None), list):
        present.locks = [lock for lock in present.locks if lock is not shared]
        del _std.TqdmDefaultWriteLock.mp_lock
