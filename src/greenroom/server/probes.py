"""The port for probes: what orchestrators ask, answered where the API is not to be reached."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..pool.log_fields import log_fields
from ..settings.server import ServerOptions
from .web import HttpServer, listen

__all__ = ["Probes"]

_logger = logging.getLogger("greenroom")


class Probes:
    """Serves ``health_port`` from :meth:`open` to :meth:`close`, if there is one."""

    def __init__(self, server_on: Callable[[socket.socket, ServerOptions], HttpServer]) -> None:
        self._server_on = server_on
        self._server: HttpServer | None = None
        self._place: tuple[str, int | None] = ("", None)

    async def open(self, options: ServerOptions, api_port: int | None) -> None:
        """Listen. Raises ``OSError``."""
        self._place = _place(options)
        if options.health_port is None:
            return
        if options.health_port == api_port:
            _logger.warning(
                "health_port is %d, where the API itself listens (on %s): it answers /livez and /readyz there",
                api_port, options.host,
            )  # fmt: skip
            return
        server = self._server_on(listen(options.health_host, options.health_port), options)
        await server.start()
        self._server = server
        url = str(server.url)
        _logger.info("probes are answered on %s: /, /livez, /readyz", url, extra=log_fields("probes", url=url))

    def compare(self, options: ServerOptions) -> None:
        """Say so if another place is wanted by now."""
        if _place(options) != self._place:
            self._place = _place(options)
            _logger.warning("health_host and health_port are others since the reload: restart the worker for that")

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()


def _place(options: ServerOptions) -> tuple[str, int | None]:
    return options.health_host, options.health_port
