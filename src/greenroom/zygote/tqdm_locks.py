"""Progress bars of tqdm in ``preload``: no thread is started for them, and sessions do not share their lock.

Whatever downloads a model shows one. Its monitor is a thread, upon which the zygote would be refused, and its lock is
one of ``multiprocessing``: a session that is killed while it draws would stop the bars, and so the work, of all others.
"""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

__all__ = ["imported", "loaded", "lock_of_all", "renew"]

_std: Any = None
_interval: object = None


def imported(module: ModuleType) -> None:
    """Start no monitor from now on: ``module`` is ``tqdm.std``, which was just imported."""
    global _std, _interval
    with suppress(AttributeError):  # a release that looks different keeps its own ways
        _interval = module.tqdm.monitor_interval
        module.tqdm.monitor_interval = 0
        _std = module


def loaded() -> None:
    """Do nothing more when the app has loaded."""


def lock_of_all() -> object:
    """Return the lock that the zygote's processes would share."""
    return getattr(getattr(_std, "TqdmDefaultWriteLock", None), "mp_lock", None)


def renew() -> None:
    """In a process: let go of the lock, which the next bar makes anew, and have monitors again."""
    if _std is None:
        return
    if _std.tqdm.monitor_interval == 0:
        _std.tqdm.monitor_interval = _interval
    present: Any = getattr(_std.tqdm, "_lock", None)
    shared = lock_of_all()
    if shared is not None and isinstance(getattr(present, "locks", None), list):
        present.locks = [lock for lock in present.locks if lock is not shared]
        del _std.TqdmDefaultWriteLock.mp_lock
