"""Guard that rejects a call of ``cli.run_app`` or ``AgentServer.run`` while an app is loaded. The error names its line.

This module imports nothing of LiveKit, since the loader calls it in the middle of LiveKit's own import.
"""

from __future__ import annotations

import sys
from types import FrameType, ModuleType
from typing import Any, NoReturn

from ....errors import AppLoadError

__all__ = ["imported", "loaded"]

_kept: list[tuple[Any, str, Any]] = []


def imported(module: ModuleType) -> None:
    """Replace the functions by ones that raise :class:`AppLoadError`, after the import of ``module``."""
    if module.__name__.endswith(".cli"):
        _replace(module, "run_app", _refuse_run_app)
    else:
        _replace(module.AgentServer, "run", _refuse_run)


def loaded() -> None:
    """Put the original functions back."""
    while _kept:
        owner, name, original = _kept.pop()
        setattr(owner, name, original)


def _replace(owner: Any, name: str, refusal: Any) -> None:
    _kept.append((owner, name, getattr(owner, name)))
    setattr(owner, name, refusal)


def _refuse_run_app(*arguments: object, **keywords: object) -> NoReturn:
    _refuse("cli.run_app")


def _refuse_run(*arguments: object, **keywords: object) -> NoReturn:
    _refuse("server.run")


def _refuse(what: str) -> NoReturn:
    frame: FrameType | None = sys._getframe(2)
    place = f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame is not None else "the app"
    raise AppLoadError(
        f"{place}, calls {what} whenever it is imported, also by the processes of the jobs. Call it in the main block: "
        f'if __name__ == "__main__":'
    )
