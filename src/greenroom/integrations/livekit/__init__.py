"""Integration of LiveKit Agents. This package imports no module; supervisor, zygote and drop-in import their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dropin import use_pool

__all__ = ["use_pool"]


def __getattr__(name: str) -> Any:
    if name != "use_pool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .dropin import use_pool  # imported late: it imports livekit.agents

    return use_pool
