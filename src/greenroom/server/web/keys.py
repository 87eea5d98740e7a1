"""Tokens of a worker and certificates of its clients, and what each of them opens."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from enum import Enum, auto

from aiohttp import web

from ...settings import ServerOptions
from ...settings.worker_options import is_loopback
from ..local_clients import LocalClients
from .tls import IS_CERTIFIED, tls_context
from .token import Token

__all__ = ["Keys", "Role", "SessionJobs"]


class Role(Enum):
    """Role of a client, by the token that it has sent."""

    OWNER = auto()
    """May do all: the client has the token or a certificate, or needs neither."""
    VIEWER = auto()
    """May read: the client has the ``view_token``."""
    SESSION = auto()
    """May start jobs, and show and cancel those: the client is a session, and ``sessions_may`` is ``start``."""
    STRANGER = auto()
    """May see what is open: the client has neither a token nor a certificate."""


class SessionJobs:
    """Ids of the jobs that sessions have started, the latest ones."""

    MOST = 10_000

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, job_id: str) -> None:
        self._ids[job_id] = None
        while len(self._ids) > self.MOST:
            self._ids.popitem(last=False)

    def discard(self, job_id: str | None) -> bool:
        """Forget an id. Return whether it was there."""
        was_there = job_id in self._ids
        self._ids.pop(job_id or "", None)
        return was_there

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._ids


class Keys:
    """Tokens of one worker, and the certificates that it trusts."""

    def __init__(self, token: Token, options: ServerOptions) -> None:
        """Read the certificates. Raises ``OptionError`` if they cannot be used."""
        self.token = token
        self.tls = tls_context(options)
        """TLS of the API; ``None`` if it has none."""
        self._trusts_certificates = options.tls_client_ca is not None
        self._view_token = None if options.view_token is None else options.view_token.encode()
        self._sessions_may = options.sessions_may
        self.session_token = None if options.sessions_may == "none" else secrets.token_hex(32)
        """Token for sessions, in their environment; ``None`` if sessions get none."""
        self._session_key = None if self.session_token is None else self.session_token.encode()
        self.session_jobs = SessionJobs()
        self.metrics_are_open = token.is_random and is_loopback(options.host)
        """True if a Prometheus on this machine scrapes without a token. It cannot know a random one."""
        self._local_clients = LocalClients() if options.has_known_clients else None

    @property
    def are_needed(self) -> bool:
        """True if clients need a token or a certificate."""
        return self.token.current is not None or self._trusts_certificates

    @property
    def want_certificate(self) -> bool:
        """True if clients have a certificate, and no token was given that could stand in for it."""
        return self._trusts_certificates and (self.token.is_random or self.token.current is None)

    @property
    def open_to_some(self) -> bool:
        """True if some clients need neither a token nor a certificate."""
        return not self.are_needed or self._local_clients is not None

    def close(self) -> None:
        """Follow no file any more, and judge no more clients."""
        self.token.close()
        if self._local_clients is not None:
            self._local_clients.close()

    async def needs_none(self, request: web.Request) -> bool:
        """Return whether the client of a request needs no token, because no session has started it."""
        if self._local_clients is None or request.transport is None:
            return False
        return await self._local_clients.is_outsider(request.transport)

    def role_of(self, request: web.Request) -> Role:
        """Return the role of a client, by its certificate and the token in its request."""
        if not self.are_needed or request.get(IS_CERTIFIED):
            return Role.OWNER
        given = _given(request)
        if given is None:
            return Role.STRANGER
        # All are compared, in the same time for each input, so that a token cannot be found byte by byte.
        is_owner = _is_same(given, self.token.current)
        is_viewer = _is_same(given, self._view_token)
        is_session = _is_same(given, self._session_key)
        if is_owner:
            return Role.OWNER
        if is_viewer:
            return Role.VIEWER
        if is_session:
            return Role.OWNER if self._sessions_may == "all" else Role.SESSION
        return Role.STRANGER


_NOBODYS = secrets.token_bytes(32)


def _is_same(given: bytes, token: bytes | None) -> bool:
    return hmac.compare_digest(given, token or _NOBODYS) and token is not None


def _given(request: web.Request) -> bytes | None:
    given = request.headers.getall("Authorization", [])
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return credentials.strip(" ").encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else None
