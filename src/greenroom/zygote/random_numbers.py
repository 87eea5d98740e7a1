"""Random numbers after a fork: each process gets a seed of its own, where a library lets itself be found and seeded.

``random`` sees to itself. A generator that the app has made is copied with all the rest: each process would draw the
same numbers from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from .app_modules import modules_of_app

__all__ = ["reseed", "warnings"]

_GENERATORS = {"random": ("Random",), "numpy.random": ("Generator", "RandomState"), "torch": ("Generator",)}


def reseed() -> None:
    """Give the global generators of libraries a seed of this process's own."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch: Any = sys.modules.get("torch")
    if getattr(torch, "default_generator", None) is not None:
        torch.default_generator.seed()


def warnings() -> list[str]:
    """A warning for each generator that is a global of one of the app's modules."""
    kinds, safe = tuple(_kinds()), getattr(sys.modules.get("random"), "SystemRandom", ())
    found = []
    for module in modules_of_app():
        for name, value in list(module.__dict__.items()):
            kind = type(value)  # not its __class__: a lazy proxy would load what it stands for
            if issubclass(kind, kinds) and not issubclass(kind, safe):
                found.append(
                    f"{module.__name__}.{name} is a generator of random numbers that was made before the fork: each "
                    f"process draws the same numbers from it. Make it in prewarm"
                )
    return found


def _kinds() -> Iterator[type]:
    for module, names in _GENERATORS.items():
        for name in names:
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type):
                yield kind
