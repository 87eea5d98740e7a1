"""Frameworks whose entrypoints run as they are. Their modules are named here, and imported only when needed."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["INTEGRATIONS", "Integration", "Watchers"]

Watchers = dict[str, str]
"""By the module whose import is watched: the module with ``imported(module)``, called then, and ``loaded()``, called
at the end."""


class Integration(NamedTuple):
    framework: str
    """The module whose import says that the app uses the framework."""
    needs: str
    discovery: str
    """The module that finds an app among the framework's objects."""
    loading: Watchers
    """Watched wherever an app is loaded."""
    before_fork: Watchers
    """Watched in a zygote, besides."""
    handing_over: Watchers
    """Watched in the process of a script."""


INTEGRATIONS = (
    Integration(
        framework="livekit.agents",
        needs="livekit-agents 1.5 or later",
        discovery="..integrations.livekit.discovery",
        loading={
            "livekit.agents.cli.cli": "..integrations.livekit.unguarded",
            "livekit.agents.worker": "..integrations.livekit.unguarded",
        },
        before_fork={"livekit.rtc._ffi_client": "..integrations.livekit.runtime"},
        handing_over={
            "livekit.agents.cli.cli": "..integrations.livekit.handover",
            "livekit.agents.worker": "..integrations.livekit.handover",
        },
    ),
)
