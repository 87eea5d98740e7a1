"""The level from which the worker shows what a LiveKit app logs, if the app or LiveKit's variable has set one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["show_levels_of"]

_app_logger = logging.getLogger("greenroom.app")

_NAMES = {5: "TRACE", 23: "DEV"}
"""LiveKit's levels between those of Python."""


def show_levels_of(manifest: Mapping[str, Any]) -> None:
    """Show records from the level that a manifest names. ``None`` leaves the decision to ``log_level``."""
    for number, name in _NAMES.items():
        logging.addLevelName(number, name)
    level = manifest.get("log_level")
    _app_logger.setLevel(logging.NOTSET if level is None else level)
