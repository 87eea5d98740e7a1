"""The worker's HTTP side: the server, who may ask, what may be asked, and how it is answered."""

from .server import HttpServer, listen

__all__ = ["HttpServer", "listen"]
