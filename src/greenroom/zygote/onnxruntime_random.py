"""Sessions of onnxruntime (``InferenceSession``) that draw random numbers.

Each operator has a generator of its own, made with the session. No function can seed the generator later. Each process
loads a small model again, which takes a few milliseconds. A large model stays shared, and a warning names it.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any

__all__ = ["LARGEST", "note", "renew", "warnings"]

LARGEST = 4 * 1024 * 1024
"""Largest size, in bytes, of a model that each process loads again."""

_HEAD = 16 * 1024 * 1024
"""Number of bytes of a model that are searched. The operators come first, and then the weights."""
_OPERATORS = (b"RandomNormal", b"RandomUniform", b"Multinomial", b"Bernoulli")
_EXTERNAL = b"location"
"""Text in a model whose weights are in separate files."""

_sessions: weakref.WeakKeyDictionary[Any, tuple[str, bool]] = weakref.WeakKeyDictionary()
"""Sessions that draw random numbers. Each has the name of its model, and whether a child can load that model again."""


def note(session: Any, model: Any) -> None:
    """Remember a session that was just made, if its model draws random numbers.

    Raises ``OSError`` or ``TypeError`` for a model that is neither bytes nor a readable file.
    """
    if isinstance(model, bytes):
        name, size, head = "a model given as bytes", len(model), model[:_HEAD]
    else:
        name = os.fspath(model)
        with open(model, "rb") as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)
    if any(operator in head for operator in _OPERATORS):
        _sessions[session] = (name, size <= LARGEST and _EXTERNAL not in head)


def renew() -> None:
    """Load small models of sessions again, so that the sessions draw other numbers than the zygote's.

    Called in a child.
    """
    set_seed = getattr(sys.modules.get("onnxruntime"), "set_seed", None)
    if set_seed is None:
        return
    set_seed(int.from_bytes(os.urandom(4)) >> 1)  # the seed of generators that are made from now on
    for session, (name, is_small) in list(_sessions.items()):
        if is_small:
            try:
                session.set_providers(session.get_providers())  # loads the same model again
            except Exception as error:  # onnxruntime may raise anything; the session works as before
                print(f"greenroom: the random numbers of {name} are not renewed: {error!r}", file=sys.stderr)


def warnings() -> list[str]:
    """Return a warning for each session whose model is not loaded again."""
    return [
        f"an onnxruntime session of {name} draws random numbers: all processes draw the same numbers. If this matters, "
        f"make the session in prewarm"
        for name, is_small in _sessions.values()
        if not is_small
    ]
