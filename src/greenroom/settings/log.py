"""The settings of the log: declared once, here, and passed on whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LogOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged, and how."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged, of Greenroom and of the app."""
    log_format: Literal["human", "json"] = "human"
    """Lines for people, or one JSON object for each event."""
