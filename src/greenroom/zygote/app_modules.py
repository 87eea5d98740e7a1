"""Modules of the app: those that belong neither to the standard library nor to an installed package."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, ModuleType

__all__ = ["callers", "digest_of", "is_of_app", "line_of", "module_name_of", "modules_of_app", "modules_of_libraries"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def modules_of_app() -> Iterator[ModuleType]:
    """Yield all modules of the app, each once."""
    found = {id(module): module for name, module in list(sys.modules.items()) if is_of_app(name)}
    for module in found.values():
        if type(module) is ModuleType:  # a lazy module would be loaded
            yield module


def modules_of_libraries() -> Iterator[ModuleType]:
    """Yield all modules that belong neither to the app nor to the standard library, each once."""
    found = {id(module): module for name, module in list(sys.modules.items()) if not is_of_app(name)}
    for module in found.values():
        if type(module) is ModuleType and module.__name__.partition(".")[0] not in sys.stdlib_module_names:
            yield module


def is_of_app(module_name: str) -> bool:
    """Return whether a module is the app's own.

    The name may lead to an object of any type, put there by an integration.
    """
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
    """Return the packages that an installer has put into a folder of the app's choice, such as pip's ``--target``.

    PEX also makes such folders.
    """
    found = set()
    with suppress(OSError):  # an archive, not a folder
        for entry in os.scandir(folder):
            if entry.name.endswith(".dist-info"):
                found |= _recorded(os.path.join(entry.path, "RECORD"))
    return frozenset(found)


def _recorded(file: str) -> set[str]:
    """Return the names of packages and modules in a list of installed files: the first part of each path."""
    with suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
        return {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines}
    return set()


def callers() -> list[FrameType]:
    """Return the frames of all callers, the nearest first."""
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def module_name_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def line_of(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def digest_of(began: int) -> str:
    """Return a digest of the path, size and modification time of each imported module's file.

    The contents do not count: some thousand files would have to be read. So a file that was only touched counts as
    changed.

    ``began`` is the time of the first import, in nanoseconds since the epoch. A file that was written later may differ
    from the imported code, for example after a long ``preload``. Then the digest has a random part, and equals no
    other.
    """
    paths = {path for module in list(sys.modules.values()) if (path := _file_of(module)) is not None}
    states = {path: found for path in sorted(paths) if (found := _state_of(path)) is not None}
    files = [f"{path}\0{found.st_size}\0{found.st_mtime_ns}" for path, found in states.items()]
    text = "\n".join(files).encode("utf-8", "surrogateescape")
    digest = f"{len(files)}-{zlib.crc32(text):08x}-{zlib.adler32(text):08x}"
    # By st_ctime, since a copy of a file can have the st_mtime of the original.
    is_sure = all(found.st_ctime_ns < began for found in states.values())
    return digest if is_sure else f"{digest}-{secrets.token_hex(8)}"


def _file_of(module: object) -> str | None:
    try:
        # Not by getattr, at which a module of the user may run any code.
        path = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:  # an object without attributes of its own
        return None
    return path if isinstance(path, str) else None


def _state_of(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None  # in an archive, or deleted by now
