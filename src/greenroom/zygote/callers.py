"""Who has called, as frames: for errors that name a module, a file and a line of the user's."""

from __future__ import annotations

import sys
from types import FrameType

__all__ = ["callers", "line_of", "module_name_of"]


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
