"""Random numbers after a fork: the generators of libraries get a new seed in each process, as far as this is possible.

The module ``random`` does so itself. A generator that the app has made is copied by a fork: each process would draw the
same numbers from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from types import GetSetDescriptorType, ModuleType
from typing import Any

from .app_modules import modules_of_app, modules_of_libraries

__all__ = ["reseed", "warnings"]

_GENERATORS = {"random": ("Random",), "numpy.random": ("Generator", "RandomState"), "torch": ("Generator",)}
_MOST_PARTS = 1000
"""Largest number of items that are searched in one object."""
_MOST_OBJECTS = 10_000
"""Largest number of objects that are searched in one module."""
_DEEPEST = 4
"""Largest number of steps from a global to a generator. In a ``Faker()``, the steps lead to the list, the item, and the
attribute."""


def reseed() -> None:
    """Give the global generators of libraries a new seed in this process."""
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
    """Return a warning for each generator that all processes would share.

    Such a generator is a global of a library, or a module of the app holds it directly or indirectly.
    """
    kinds, known = tuple(_kinds()), _seeded_anew()
    safe = getattr(sys.modules.get("random"), "SystemRandom", ())
    found = []

    def warn(name: str, value: object, remedy: str) -> None:
        # By type(), not by __class__: a lazy proxy would load the real object.
        if issubclass(type(value), kinds) and not issubclass(type(value), safe) and id(value) not in known:
            known.add(id(value))
            found.append(
                f"{name} is a generator of random numbers that was made before the fork: all processes draw the same "
                f"numbers from it. {remedy}"
            )

    for module in modules_of_libraries() if kinds else ():
        for name, value in _items(module.__dict__):
            path = f"{module.__name__}.{name}"
            warn(path, value, f"It belongs to a library: call {path}.seed() in prewarm")
    for module in modules_of_app() if kinds else ():
        for path, value in _reachable(module):
            warn(path, value, "Make it in prewarm")
    onnxruntime: Any = _onnxruntime()
    return found if onnxruntime is None else found + onnxruntime.warnings()


def _reachable(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield the values of a module with their full names, then the values inside them, and so on."""
    level: list[tuple[str, object]] = [(f"{module.__name__}.{name}", value) for name, value in _items(module.__dict__)]
    seen = {id(value) for _, value in level}
    for _ in range(_DEEPEST):
        yield from level
        deeper: list[tuple[str, object]] = []
        for path, value in level:
            for name, part in _parts(value):
                if id(part) not in seen and len(seen) < _MOST_OBJECTS:
                    seen.add(id(part))
                    deeper.append((path + name, part))
        level = deeper
    yield from level


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield the attributes, items or elements of an object, each with the text that its name adds to a path."""
    kind = type(value)
    if kind is dict:
        yield from ((f"[{key!r}]", part) for key, part in _items(value) if type(key) in (str, int))
    elif kind in (list, tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value[:_MOST_PARTS]))  # type: ignore[index]
    elif not issubclass(kind, (type, ModuleType)):
        yield from ((f".{name}", part) for name, part in _items(_attributes(value)))


def _items(names: Any) -> list[tuple[Any, object]]:
    return list(islice(names.items(), _MOST_PARTS))


def _attributes(value: object) -> dict[str, object]:
    """Return an object's attributes without running its code: the code of a lazy proxy would load the real object."""
    for kind in type(value).__mro__:
        slot = vars(kind).get("__dict__")
        if slot is not None:
            return dict(slot.__get__(value)) if type(slot) is GetSetDescriptorType else {}
    return {}


def _seeded_anew() -> set[int]:
    """Return the ids of the generators that :func:`reseed` seeds, whatever names the app gives to them."""
    owners = (("numpy.random.mtrand", "_rand"), ("torch", "default_generator"))
    return {id(found) for module, name in owners if (found := getattr(sys.modules.get(module), name, None)) is not None}


def _onnxruntime() -> ModuleType | None:
    """Return the module :mod:`greenroom.zygote.onnxruntime_random`, if the app has imported onnxruntime."""
    return sys.modules.get(f"{__package__}.onnxruntime_random")


def _kinds() -> Iterator[type]:
    for module, names in _GENERATORS.items():
        for name in names:
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type):
                yield kind
