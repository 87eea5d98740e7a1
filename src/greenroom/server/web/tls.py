"""TLS of the API: the worker's certificate, and clients that are trusted by theirs.

asyncio buffers more for TLS than for plain connections, and by other rules. This module bounds that. It uses one name
of asyncio that is not documented: ``test_server_tls`` fails if it changes.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from typing import Any

from aiohttp import web

from ...errors import OptionError
from ...settings import ServerOptions
from .turns import PIECE

__all__ = ["IS_CERTIFIED", "bound_buffers", "has_certificate", "is_encrypted", "tls_context"]

IS_CERTIFIED = web.RequestKey("greenroom.is_certified", bool)
"""Key of a request: true if its client has shown a certificate that ``tls_client_ca`` has signed."""
_MOST_FLIGHTS = 8
"""Most steps of each side of a TLS handshake. TLS 1.3 takes two."""


def tls_context(options: ServerOptions) -> ssl.SSLContext | None:
    """Return the context for the API's connections; ``None`` without ``tls_cert``.

    Raises ``OptionError`` if a file cannot be used, or if the worker's own certificate would open other workers.
    """
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, options.tls_cert, options.tls_key)
    if options.tls_client_ca is not None:
        _trust(context, options.tls_client_ca)
        # A client without a certificate connects, too: for the health checks, or with the token.
        context.verify_mode = ssl.CERT_OPTIONAL
        if _opens(context, options.tls_cert, options.tls_key):
            raise OptionError(
                f"tls_client_ca would trust a client with the worker's own certificate, {options.tls_cert} (tls_cert): "
                "whoever reads this worker's files could start jobs on all workers. Let another CA sign it, or sign it "
                "for servers only (extendedKeyUsage = serverAuth)"
            )
    # By default, each connection has a buffer of 256 KiB, from before its handshake on.
    sslproto.SSLProtocol.max_size = PIECE
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    try:
        # With a password, even an empty one, OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        names = certificate if key is None else f"{certificate} and {key}"
        raise OptionError(
            f"the certificate and its key cannot be used ({names}; tls_cert, tls_key): {_cause(error)}. Both must be "
            "PEM and belong together, and the key must not be encrypted"
        ) from None


def _trust(context: ssl.SSLContext, authority: str) -> None:
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        text = f"the file {authority} (tls_client_ca) cannot be used: {_cause(error)}. It must hold certificates as PEM"
        raise OptionError(text) from None


def _cause(error: OSError) -> str:
    return error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else str(error)


def _opens(server: ssl.SSLContext, certificate: str, key: str | None) -> bool:
    """Return true if a server with this context trusts a client that shows this certificate: the two shake hands."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    _load_certificate(client, certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    try:
        for _ in range(_MOST_FLIGHTS):
            for side in sides:
                _step(side)
        return bool(sides[1].getpeercert())
    except (ssl.SSLError, ValueError):  # ValueError: the handshake is not over
        return False


def _step(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return


def is_encrypted(transport: asyncio.BaseTransport) -> bool:
    """Return true if a connection is one of TLS."""
    return transport.get_extra_info("ssl_object") is not None


def has_certificate(transport: asyncio.BaseTransport) -> bool:
    """Return true if the client has shown a certificate that ``tls_client_ca`` has signed.

    One that is not verified leaves the dictionary empty.
    """
    return bool(transport.get_extra_info("peercert"))


def bound_buffers(transport: asyncio.Transport) -> None:
    """Bound what asyncio buffers for a connection of TLS."""
    tls: Any = transport
    tls.set_write_buffer_limits(high=1)  # with 0, asyncio's TLS pauses the writer of an empty buffer
    tls.set_read_buffer_limits(high=2 * PIECE)  # more than the largest record, which is decrypted as a whole
