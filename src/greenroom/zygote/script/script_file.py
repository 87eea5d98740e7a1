"""Scripts: finds the file of a script, analyses its text, and imports it under its own name."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import NoReturn

from ...errors import AppLoadError

__all__ = ["SPARE_NAME", "Script", "import_script", "is_path", "module_of"]

SPARE_NAME = "__mp_main__"
"""Name that multiprocessing gives to a script in its children."""

_scripts: dict[str, ModuleType] = {}
"""Modules of the scripts that were imported, by path."""


def is_path(place: str) -> bool:
    """Return whether a place is the path of a file, rather than the name of a module."""
    return place.endswith(".py") or os.sep in place


def import_script(path: str) -> ModuleType:
    """Import a file as a module, once, without its main block.

    Raises :class:`AppLoadError` if there is no such file.
    """
    path = os.path.abspath(path)
    if path in _scripts:
        return _scripts[path]
    if not os.path.isfile(path):
        raise AppLoadError(f"there is no file {path}")
    root, name = _place_in_package(path)
    # As Python does for a script, so that it can import its neighbours.
    if sys.path[:1] != [root]:
        sys.path.insert(0, root)
    if "." in name:
        _scripts[path] = importlib.import_module(name)
        return _scripts[path]
    loader = _ScriptLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = _scripts[path] = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def module_of(path: str) -> ModuleType | None:
    """Return the module that a script was imported as; ``None`` for any other file."""
    return _scripts.get(os.path.abspath(path))


@dataclass(frozen=True, slots=True)
class Script:
    """Text of a script, or of a module that is run as one."""

    path: str
    name: str | None
    """Name of the module; ``None`` for a file that Python would run by its path."""
    tree: ast.Module
    block: int | None
    """Index in ``tree.body`` at which the main block begins; ``None`` if there is none."""

    @classmethod
    def find(cls, place: str) -> Script | None:
        """Find and parse a script, and import the packages that contain it.

        Return ``None`` if there is no such file, or if it is not Python.
        """
        path, name = _file_of(place)
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read(), path)
        except (OSError, SyntaxError, ValueError):
            return None
        return cls(path, name, tree, _main_block(tree, path))

    @property
    def makes_an_app(self) -> bool:
        """Return whether the text assigns a new ``App`` to ``app``, the name that the loader looks for."""
        return any(isinstance(node, ast.Assign) and _is_app(node) for node in self.tree.body)

    def fingerprint(self) -> str:
        """Return a checksum of the main block, and of this file's functions that it calls, also indirectly."""
        parts = [] if self.block is None else self.tree.body[self.block :]
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions: dict[str, ast.stmt] = {node.name: node for node in self.tree.body if isinstance(node, kinds)}
        seen: dict[str, ast.stmt] = {}
        waiting = list(parts)
        while waiting:
            called = {node.id for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name)} & functions.keys()
            new = {name: functions[name] for name in called - seen.keys()}
            seen |= new
            waiting += new.values()
        texts = [ast.dump(node) for node in parts] + [ast.dump(seen[name]) for name in sorted(seen)]
        return f"{zlib.crc32(' '.join(texts).encode()):08x}"


class _ScriptLoader(SourceFileLoader):
    """Loader that compiles the file again each time, as Python does for a script.

    Python recognises old bytecode by the file's size and by its modification time in whole seconds. After an edit of
    one digit and a reload within the same second, the old code would run.
    """

    def path_stats(self, path: str) -> NoReturn:
        raise OSError("not kept")


def _file_of(place: str) -> tuple[str, str | None]:
    if is_path(place):
        path = os.path.abspath(place)
        root, name = _place_in_package(path)
        if "." not in name:
            return path, None
        sys.path.insert(0, root)
        place = name
    spec = importlib.util.find_spec(place)
    if spec is not None and spec.submodule_search_locations is not None:  # a package: Python runs its __main__
        place = f"{place}.__main__"
        spec = importlib.util.find_spec(place)
    return (spec.origin or "", place) if spec is not None else ("", place)


def _place_in_package(path: str) -> tuple[str, str]:
    """Return the folder that a file is imported from, and the name of its module.

    The module gets the file's own name if that is free, else :data:`SPARE_NAME`. A file with relative imports is a
    module of the package that contains it. Raises :class:`AppLoadError` if no package contains such a file.
    """
    folder, file = os.path.split(path)
    name = file.removesuffix(".py")
    line = _relative_import(path)
    if line is not None:
        root, package = _package_of(folder)
        if not package:
            raise AppLoadError(
                f"{path}, line {line}, is a relative import, and the file is in no package: {folder} has no "
                f"__init__.py. Import its neighbours by their names"
            )
        return root, f"{package}.{name}"
    is_free = name not in sys.modules and name not in sys.stdlib_module_names
    return folder, name.replace(".", "_") if is_free else SPARE_NAME


def _package_of(folder: str) -> tuple[str, str]:
    names: list[str] = []
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, name = os.path.split(folder)
        names.insert(0, name)
    return folder, ".".join(names)


def _relative_import(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = ast.parse(text if b"from ." in text else b"", path)
    except (OSError, SyntaxError, ValueError):
        return None  # the run reports the error
    # Only top-level imports: one within a `try` may have a fallback.
    return next((node.lineno for node in tree.body if isinstance(node, ast.ImportFrom) and node.level), None)


def _main_block(tree: ast.Module, path: str) -> int | None:
    if os.path.basename(path) == "__main__.py":
        return 0
    return next((index for index, node in enumerate(tree.body) if any(map(_asks_for_main, _statements(node)))), None)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    """Yield all nodes of a statement, but none of a definition of a function or class."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield from ast.walk(node)


def _asks_for_main(node: ast.AST) -> bool:
    """Return whether a node compares ``__name__`` with ``"__main__"``, in any order."""
    if not isinstance(node, ast.Compare):
        return False
    parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    values = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return "__name__" in names and "__main__" in values


def _is_app(node: ast.Assign) -> bool:
    names = {target.id for target in node.targets if isinstance(target, ast.Name)}
    call = node.value
    made = getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
    return "app" in names and made == "App"
