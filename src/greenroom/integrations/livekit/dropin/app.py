"""The app that a zygote runs for LiveKit's worker. It has no name of its own in any module of the user's:
what it is made of stands, as text, in the name by which it is asked for.

So a zygote that replaces a lost one finds all that it needs, and two pools of one process do not meet.
"""

from __future__ import annotations

import json
from typing import Any

from ....app import App

__all__ = ["reference"]

_PREFIX = "app_"


def reference(settings: dict[str, Any]) -> str:
    """How a pool names the app with these settings, which are plain data."""
    return f"{__name__}:{_PREFIX}{json.dumps(settings).encode().hex()}"


def __getattr__(name: str) -> App:
    if not name.startswith(_PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .child import make_app

    return make_app(json.loads(bytes.fromhex(name.removeprefix(_PREFIX))))
