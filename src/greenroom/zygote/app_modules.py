"""Which modules are the app's own: they belong neither to the standard library nor to an installed package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType

__all__ = ["is_of_app", "modules_of_app"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def modules_of_app() -> Iterator[ModuleType]:
    """All of them, each once."""
    found = {id(module): module for name, module in list(sys.modules.items()) if is_of_app(name)}
    for module in found.values():
        if type(module) is ModuleType:  # a lazy one would be loaded
            yield module


def is_of_app(module_name: str) -> bool:
    """Whether that module is the app's own. It may be what an integration has put there, of any kind."""
    package = module_name.partition(".")[0]
    if package in sys.stdlib_module_names or package == __package__.partition(".")[0]:
        return False
    file = getattr(sys.modules.get(module_name), "__dict__", {}).get("__file__")
    return isinstance(file, str) and _INSTALLED.isdisjoint(file.split(os.sep))
