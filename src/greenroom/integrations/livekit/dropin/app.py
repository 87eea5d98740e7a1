"""App that a zygote runs for LiveKit's worker. No module of the user's defines the app. Its name holds its settings.

So a zygote that replaces a lost one finds the same settings. Two pools of one process do not share an app.
"""

from __future__ import annotations

import json
from typing import Any

from ....app import App

__all__ = ["reference"]

_PREFIX = "app_"


def reference(settings: dict[str, Any]) -> str:
    """Return the name by which a pool loads the app with these settings. They are plain data."""
    return f"{__name__}:{_PREFIX}{json.dumps(settings).encode().hex()}"


def __getattr__(name: str) -> App:
    if not name.startswith(_PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .job_program import make_app  # imported late: it imports livekit.agents

    return make_app(json.loads(bytes.fromhex(name.removeprefix(_PREFIX))))
