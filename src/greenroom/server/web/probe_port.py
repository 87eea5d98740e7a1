"""Port for the probes of orchestrators, which can be reached where the API must not be reached."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from ...log_fields import log_fields
from ...settings.worker_options import ServerOptions
from . import HttpServer, listen

__all__ = ["Probes"]

_logger = logging.getLogger("greenroom")


class Probes:
    """Server on ``health_port``, from :meth:`open` to :meth:`close`. Without a ``health_port``, there is no server."""

    def __init__(self, server_on: Callable[[socket.socket, ServerOptions], HttpServer]) -> None:
        self._server_on = server_on
        self._server: HttpServer | None = None
        self._place: tuple[str, int | None] = ("", None)
        self._api_port: int | None = None
        self._moving: asyncio.Task[None] | None = None

    async def open(self, options: ServerOptions, api_port: int | None) -> None:
        """Listen on ``health_port``. Raises ``OSError`` with a text that names the address."""
        self._place, self._api_port = _place(options), api_port
        await self._open(options)

    def move(self, options: ServerOptions) -> None:
        """Move to the address that the app has set after :meth:`open`. An error is logged."""
        if _place(options) != self._place:
            self._place = _place(options)
            self._moving = asyncio.create_task(self._move(options), name="greenroom-probes")

    def compare(self, options: ServerOptions) -> None:
        """Log a warning if a reload has set another address. The port stays where it is."""
        if _place(options) != self._place:
            self._place = _place(options)
            text = "the reload has changed health_host or health_port. Restart the worker to apply the change"
            _logger.warning(text, extra=log_fields("restart_needed", cause="probes"))

    async def close(self) -> None:
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait([self._moving])
        await self._close()

    async def _move(self, options: ServerOptions) -> None:
        await self._close()
        try:
            await self._open(options)
        except OSError as error:
            _logger.error("%s", error.strerror, extra=log_fields("probes_failed", cause=error.strerror))

    async def _open(self, options: ServerOptions) -> None:
        port = options.health_port
        if port is None:
            return
        is_apis = port == self._api_port
        if is_apis and _covers(options.host, options.health_host):
            text = "health_port is %d, the port of the API (on %s): the API answers /livez and /readyz there"
            _logger.warning(text, port, options.host, extra=log_fields("probes", port=port))
            return
        try:
            # In a thread, because the look-up of a host name may take long.
            sock = await asyncio.to_thread(listen, options.health_host, port)
        except OSError as error:
            raise OSError(error.errno, _explained(error, options, is_apis)) from error
        self._server = self._server_on(sock, options)
        await self._server.start()
        url = str(self._server.url)
        _logger.info("probes are answered on %s: /, /livez, /readyz", url, extra=log_fields("probes", url=url))

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()


def _place(options: ServerOptions) -> tuple[str, int | None]:
    return options.health_host, options.health_port


def _covers(api_host: str, host: str) -> bool:
    """Return true if an API that listens on ``api_host`` is also reached at ``host``, on the same port."""
    if api_host == "::":
        return ":" in host
    return api_host in ("", host) or (api_host == "0.0.0.0" and ":" not in host)


def _explained(error: OSError, options: ServerOptions, is_apis: bool) -> str:
    host, port = options.health_host or "all addresses", options.health_port
    text = f"cannot listen on {host}, port {port} (health_port): {error.strerror}"
    if is_apis and error.errno == errno.EADDRINUSE:
        text += f". The API has this port on {options.host}; set another health_port, or another port for the API"
    return text
