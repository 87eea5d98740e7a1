"""File and line at which the code of an app stood, from a traceback or from a dump of stacks. Pure.

Both have a frame in each line. The frame of the app is the one that people look for: most often the innermost ones are
in a library, and in the standard library below it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Place", "place_fields", "place_in_stacks", "place_in_traceback"]

_FRAME = re.compile(r'^[ |]*File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
_THREAD = re.compile(r"^(Current t|T)hread 0x[^\n]*:$", re.MULTILINE)
_OWN = os.path.dirname(__file__) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """Line of a file."""

    file: str
    line: int


def place_in_traceback(text: str) -> Place | None:
    """Return the innermost place of the app in a traceback, or in a text that has one; ``None`` without a frame."""
    return _chosen(reversed(_frames(text)))


def place_in_stacks(text: str) -> Place | None:
    """Return the innermost place of the app in the stacks of all threads, as ``faulthandler`` writes them.

    The thread that has crashed comes first, and then the main thread, which is the last one in the text.
    """
    parts = _THREAD.split(text)[1:]
    threads = list(zip(parts[::2], parts[1::2], strict=True))[::-1]
    current = [frames for kind, frames in threads if kind != "T"]
    others = [frames for kind, frames in threads if kind == "T"]
    return _chosen(frame for frames in (*current, *others) for frame in _frames(frames))


def place_fields(place: Place | None) -> dict[str, str | int | None]:
    """Return the fields ``file`` and ``line`` of a log line."""
    return {"file": None, "line": None} if place is None else {"file": place.file, "line": place.line}


def _frames(text: str) -> list[Place]:
    return [Place(match["file"], int(match["line"])) for match in _FRAME.finditer(text)]


def _chosen(innermost_first: Iterable[Place]) -> Place | None:
    """Return the first frame of the app itself; else that of an installed package; else any."""
    frames = list(innermost_first)
    choices: tuple[Callable[[str], bool], ...] = (_is_of_app, _is_installed, lambda file: True)
    return next((frame for choice in choices for frame in frames if choice(frame.file)), None)


def _is_of_app(file: str) -> bool:
    return not _is_installed(file) and not file.startswith(("<", _OWN, _STANDARD))


def _is_installed(file: str) -> bool:
    # The package can be installed as well, and site-packages can be below the standard library.
    return not file.startswith(_OWN) and any(part in file for part in _INSTALLED)
