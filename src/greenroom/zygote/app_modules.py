"""Which modules are the app's own: they belong neither to the standard library nor to an installed package."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType

__all__ = ["is_of_app", "modules_of_app", "modules_of_libraries"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def modules_of_app() -> Iterator[ModuleType]:
    """All of them, each once."""
    found = {id(module): module for name, module in list(sys.modules.items()) if is_of_app(name)}
    for module in found.values():
        if type(module) is ModuleType:  # a lazy one would be loaded
            yield module


def modules_of_libraries() -> Iterator[ModuleType]:
    """All that are neither the app's own nor the standard library's, each once."""
    found = {id(module): module for name, module in list(sys.modules.items()) if not is_of_app(name)}
    for module in found.values():
        if type(module) is ModuleType and module.__name__.partition(".")[0] not in sys.stdlib_module_names:
            yield module


def is_of_app(module_name: str) -> bool:
    """Whether that module is the app's own. It may be what an integration has put there, of any kind."""
    package = module_name.partition(".")[0]
    if package in sys.stdlib_module_names or package == __package__.partition(".")[0]:
        return False
    file = getattr(sys.modules.get(module_name), "__dict__", {}).get("__file__")
    if not isinstance(file, str) or not _INSTALLED.isdisjoint(file.split(os.sep)):
        return False
    folder = file
    for _ in range(module_name.count(".") + 1 + (os.path.basename(file).startswith("__init__."))):
        folder = os.path.dirname(folder)
    return package not in _installed_into(folder)


@functools.cache
def _installed_into(folder: str) -> frozenset[str]:
    """Return the packages that an installer has put into a folder of the app's choice: pip's ``--target``, PEX."""
    found = set()
    with suppress(OSError):  # it is not a folder, but an archive
        for entry in os.scandir(folder):
            if entry.name.endswith(".dist-info"):
                found |= _recorded(os.path.join(entry.path, "RECORD"))
    return frozenset(found)


def _recorded(file: str) -> set[str]:
    """Return the first parts of the paths in a list of installed files, which are names of packages and modules."""
    with suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
        return {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines}
    return set()
