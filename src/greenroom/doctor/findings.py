"""A finding: what was found, how bad that is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "note", "ok", "problem", "warning"]

Level = Literal["ok", "note", "warning", "problem"]

"""``ok``: as it should be. ``note``: good to know. ``warning``: it works, but not for long, or not well.
``problem``: the app cannot be served like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    topic: str
    """What it is about: load, threads, sockets, memory, prewarm, capacity, limits, kernel, grace."""
    found: str
    todo: str = ""
    """What to do; empty only where nothing needs to be done."""


def ok(topic: str, found: str) -> Finding:
    return Finding("ok", topic, found)


def note(topic: str, found: str, todo: str = "") -> Finding:
    return Finding("note", topic, found, todo)


def warning(topic: str, found: str, todo: str) -> Finding:
    return Finding("warning", topic, found, todo)


def problem(topic: str, found: str, todo: str) -> Finding:
    return Finding("problem", topic, found, todo)
