"""Sessions of onnxruntime that draw random numbers: each operator has a generator of its own, made with the session.

Nobody can seed it later. A small model is loaded anew in each process, which takes a few milliseconds. A large one
stays shared, and is named.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any

__all__ = ["LARGEST", "note", "renew", "warnings"]

LARGEST = 4 * 1024 * 1024
"""Bytes of a model that each process loads anew."""

_HEAD = 16 * 1024 * 1024
"""Bytes of a model that are searched: the operators come first, and then the weights."""
_OPERATORS = (b"RandomNormal", b"RandomUniform", b"Multinomial", b"Bernoulli")
_EXTERNAL = b"location"
"""Stands in a model whose weights are in files of their own."""

_sessions: weakref.WeakKeyDictionary[Any, tuple[str, bool]] = weakref.WeakKeyDictionary()
"""Those that draw: the model's name, and whether it is small."""


def note(session: Any, model: Any) -> None:
    """Remember a session that was just made, if its model draws random numbers."""
    if isinstance(model, bytes):
        name, size, head = "a model given as bytes", len(model), model[:_HEAD]
    else:
        name = os.fspath(model)
        with open(model, "rb") as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)
    if any(operator in head for operator in _OPERATORS):
        _sessions[session] = (name, size <= LARGEST and _EXTERNAL not in head)


def renew() -> None:
    """Give the sessions that can be made anew other numbers than the zygote's. Called in a child."""
    set_seed = getattr(sys.modules.get("onnxruntime"), "set_seed", None)
    if set_seed is None:
        return
    set_seed(int.from_bytes(os.urandom(4)) >> 1)  # from which generators are made from now on
    for session, (name, is_small) in list(_sessions.items()):
        if is_small:
            try:
                session.set_providers(session.get_providers())  # makes it anew, of the same model
            except Exception as error:  # of a library that does as it likes: the session is as good as before
                print(f"greenroom: the random numbers of {name} are not renewed: {error!r}", file=sys.stderr)


def warnings() -> list[str]:
    """Return a warning for each session that is not made anew."""
    return [
        f"an onnxruntime session of {name} draws random numbers: each process draws the same. Where that matters, make "
        f"it in prewarm"
        for name, is_small in _sessions.values()
        if not is_small
    ]
