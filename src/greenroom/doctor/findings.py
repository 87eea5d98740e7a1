"""Finding: an observation, its level and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "note", "ok", "problem", "warning"]

Level = Literal["ok", "note", "warning", "problem"]

"""Level of a finding. ``ok``: as expected. ``note``: good to know. ``warning``: the app works, but not for long, or not
well. ``problem``: the app cannot be served like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    topic: str
    """Topic: load, threads, sockets, prewarm, memory, image, session, capacity, limits, kernel, walls or grace."""
    found: str
    todo: str = ""
    """Remedy; empty only if nothing needs to be done."""


def ok(topic: str, found: str) -> Finding:
    return Finding("ok", topic, found)


def note(topic: str, found: str, todo: str = "") -> Finding:
    return Finding("note", topic, found, todo)


def warning(topic: str, found: str, todo: str) -> Finding:
    return Finding("warning", topic, found, todo)


def problem(topic: str, found: str, todo: str) -> Finding:
    return Finding("problem", topic, found, todo)
