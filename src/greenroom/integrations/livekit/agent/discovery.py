"""Discovery of LiveKit's object in an app's module, for the loader."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ....app import App
from ....errors import AppLoadError
from .adapter import adapt
from .blueprint import is_server
from .handed_server import put_together

__all__ = ["adapt", "find", "is_server", "put_together"]


def find(module: ModuleType) -> App | None:
    """Return the app of the module's only ``AgentServer`` or ``WorkerOptions``; ``None`` if the module has none.

    Raises :class:`AppLoadError` if the module has several.
    """
    servers: dict[int, tuple[str, Any]] = {}
    for name, value in vars(module).items():
        if is_server(value):
            servers.setdefault(id(value), (name, value))
    if len(servers) > 1:
        names = ", ".join(name for name, _ in servers.values())
        raise AppLoadError(
            f"module {module.__name__!r} has several LiveKit servers ({names}); name the one to serve, as in "
            f"agent.py:{next(iter(servers.values()))[0]}"
        )
    return adapt(next(iter(servers.values()))[1]) if servers else None
