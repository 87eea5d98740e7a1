"""HTTP side of the worker: the server, the checks of clients, the operations, and the answers."""

from .app import HttpServer, listen

__all__ = ["HttpServer", "listen"]
