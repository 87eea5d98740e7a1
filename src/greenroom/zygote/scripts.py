"""Scripts: where one is, what its text says before it is run, and its import under its own name."""

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

from ..errors import AppLoadError

__all__ = ["SPARE_NAME", "Script", "import_script", "is_path", "module_of"]

SPARE_NAME = "__mp_main__"
"""The name that multiprocessing gives to a script in its children."""

_scripts: dict[str, ModuleType] = {}
"""Those that were imported, by path."""


def is_path(place: str) -> bool:
    """Whether a place is a file, rather than a module's name."""
    return place.endswith(".py") or os.sep in place


def import_script(path: str) -> ModuleType:
    """Import a file as a module, once. Its main block is not run. Raises :class:`AppLoadError` if there is none."""
    path = os.path.abspath(path)
    if path in _scripts:
        return _scripts[path]
    if not os.path.isfile(path):
        raise AppLoadError(f"there is no file {path}")
    root, name = _place_in_package(path)
    # As Python does for a script: its neighbours can be imported.
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
    """The text of a script, or of a module that is run as one."""

    path: str
    name: str | None
    """The module's name; ``None`` for a file that Python would run by its path."""
    tree: ast.Module
    block: int | None
    """Where the main block begins, in ``tree.body``."""

    @classmethod
    def find(cls, place: str) -> Script | None:
        """Find it, importing the packages that it is in. ``None`` if there is no such file, or it is not Python."""
        path, name = _file_of(place)
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read(), path)
        except (OSError, SyntaxError, ValueError):
            return None
        return cls(path, name, tree, _main_block(tree, path))

    @property
    def makes_an_app(self) -> bool:
        """Whether its text makes a Greenroom app, by the name under which one is looked for."""
        return any(isinstance(node, ast.Assign) and _is_app(node) for node in self.tree.body)

    def fingerprint(self) -> str:
        """Tell whether the main block, or a function of this file that it calls, has changed."""
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
    """Compiles the file anew each time, as Python does for a script.

    What Python has compiled and kept is told to be stale by the file's size and its time in whole
    seconds: an edit of one digit, reloaded within the second, would go on as it was.
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
    if spec is not None and spec.submodule_search_locations is not None:  # a package: its __main__ is what is run
        place = f"{place}.__main__"
        spec = importlib.util.find_spec(place)
    return (spec.origin or "", place) if spec is not None else ("", place)


def _place_in_package(path: str) -> tuple[str, str]:
    """Return the folder that a file is imported from, and the name of its module.

    By its own name if it is free, unless it has relative imports: then it is a module of the package that it is in.
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
        return None  # told when it is run
    # Those that nothing can catch: what is within a `try` may well have another way.
    return next((node.lineno for node in tree.body if isinstance(node, ast.ImportFrom) and node.level), None)


def _main_block(tree: ast.Module, path: str) -> int | None:
    if os.path.basename(path) == "__main__.py":
        return 0
    return next((index for index, node in enumerate(tree.body) if any(map(_asks_for_main, _statements(node)))), None)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    """Walk what is run with the statement itself: the bodies of functions are not."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield from ast.walk(node)


def _asks_for_main(node: ast.AST) -> bool:
    """Whether it compares ``__name__`` with ``"__main__"``, in whatever order."""
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
