"""Random numbers after a fork: each process gets a seed of its own, where a library lets itself be found and seeded.

``random`` sees to itself. A generator that the app has made is copied with all the rest: each process would draw the
same numbers from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from types import GetSetDescriptorType, ModuleType
from typing import Any

from .app_modules import modules_of_app

__all__ = ["reseed", "warnings"]

_GENERATORS = {"random": ("Random",), "numpy.random": ("Generator", "RandomState"), "torch": ("Generator",)}
_MOST_PARTS = 1000
"""Items of a global that are looked at."""


def reseed() -> None:
    """Give the global generators of libraries a seed of this process's own."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch: Any = sys.modules.get("torch")
    if getattr(torch, "default_generator", None) is not None:
        torch.default_generator.seed()
    onnxruntime: Any = _onnxruntime()
    if onnxruntime is not None:
        onnxruntime.renew()


def warnings() -> list[str]:
    """Return a warning for each generator that a global of one of the app's modules is, or holds."""
    kinds, seeded = tuple(_kinds()), _seeded_anew()
    safe = getattr(sys.modules.get("random"), "SystemRandom", ())
    found: dict[int, str] = {}  # a name for each
    for module in modules_of_app():
        for name, value in _with_parts(module.__dict__, module.__name__):
            # Of its type, not its __class__: a lazy proxy would load what it stands for.
            if issubclass(type(value), kinds) and not issubclass(type(value), safe) and id(value) not in seeded:
                found.setdefault(id(value), name)
    told = [
        f"{name} is a generator of random numbers that was made before the fork: each process draws the same numbers "
        f"from it. Make it in prewarm"
        for name in found.values()
    ]
    onnxruntime: Any = _onnxruntime()
    return told if onnxruntime is None else told + onnxruntime.warnings()


def _with_parts(names: Mapping[str, Any], owner: str) -> Iterator[tuple[str, object]]:
    """Give the values with their full names; and the attributes, items and elements of each."""
    for name, value in list(names.items()):
        path = f"{owner}.{name}"
        yield path, value
        kind = type(value)
        if kind is dict:
            items = list(islice(value.items(), _MOST_PARTS))
            yield from ((f"{path}[{key!r}]", part) for key, part in items if type(key) in (str, int))
        elif kind in (list, tuple):
            yield from ((f"{path}[{index}]", part) for index, part in enumerate(value[:_MOST_PARTS]))
        elif not issubclass(kind, (type, ModuleType)):
            yield from ((f"{path}.{attribute}", part) for attribute, part in _attributes(value).items())


def _attributes(value: object) -> dict[str, object]:
    """Return an object's attributes. Runs none of its code: a lazy proxy answers for what it stands for."""
    for kind in type(value).__mro__:
        slot = vars(kind).get("__dict__")
        if slot is not None:
            return dict(slot.__get__(value)) if type(slot) is GetSetDescriptorType else {}
    return {}


def _seeded_anew() -> set[int]:
    """Return the ids of the generators that :func:`reseed` knows, by whatever name the app has them."""
    owners = (("numpy.random.mtrand", "_rand"), ("torch", "default_generator"))
    return {id(found) for module, name in owners if (found := getattr(sys.modules.get(module), name, None)) is not None}


def _onnxruntime() -> ModuleType | None:
    """Return the module that knows sessions of onnxruntime, if the app has imported that."""
    return sys.modules.get(f"{__package__}.onnxruntime_random")


def _kinds() -> Iterator[type]:
    for module, names in _GENERATORS.items():
        for name in names:
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type):
                yield kind
