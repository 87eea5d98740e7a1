"""Threads of onnxruntime: ``OMP_NUM_THREADS`` sets their number in an ``InferenceSession`` whose options name none.

By default, onnxruntime starts a thread for each core, and reads no environment variable. That is too many with one
process for each call, and a zygote with such threads must not fork. This module must not break the app. A release of
onnxruntime that looks different keeps its own defaults.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from types import ModuleType
from typing import Any

from .onnxruntime_random import note

__all__ = ["imported", "number_of_threads"]

_VARIABLE = "OMP_NUM_THREADS"
_FIELDS = ("intra_op_num_threads", "inter_op_num_threads")


def imported(module: ModuleType) -> None:
    """Change the defaults. ``module`` is ``onnxruntime``, which was just imported."""
    session, options = getattr(module, "InferenceSession", None), getattr(module, "SessionOptions", None)
    if not isinstance(session, type) or options is None or not all(hasattr(options, name) for name in _FIELDS):
        return
    initialize: Any = session.__init__  # type: ignore[misc]
    if hasattr(initialize, "__wrapped__"):  # imported a second time
        return

    @functools.wraps(initialize)
    def initialize_with_threads(
        self: Any, path_or_bytes: Any, sess_options: Any = None, *args: Any, **more: Any
    ) -> None:
        number = number_of_threads(os.environ.get(_VARIABLE, ""))
        if number is not None:
            sess_options = options() if sess_options is None else sess_options
            _fill_in(sess_options, number)
        initialize(self, path_or_bytes, sess_options, *args, **more)
        with suppress(OSError, TypeError):  # onnxruntime accepts more types than bytes and files
            note(self, path_or_bytes)

    session.__init__ = initialize_with_threads  # type: ignore[misc]


def loaded() -> None:
    """Do nothing: the watcher has no work after the load."""


def number_of_threads(value: str) -> int | None:
    """Return the number in the variable; ``None`` if there is none.

    From OpenMP's list, one for each level, take the first.
    """
    first = value.partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _fill_in(options: Any, number: int) -> None:
    for name in _FIELDS:
        if getattr(options, name, None) == 0:  # 0 is the default: onnxruntime decides
            setattr(options, name, number)
