"""The checks that each request passes first: tokens, host names, origins, request rates."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from ...texts import ascii_only
from .connections import network_of
from .hosts import host_name, is_absolute, is_of_another_site, target_host
from .schema import ApiError
from .token import Token

__all__ = ["Guard", "RateLimit", "is_trusted"]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBES = frozenset({"/livez", "/readyz"})
"""They are answered at any rate."""
_MOST_CLIENTS = 10_000
_IS_TRUSTED = web.RequestKey("greenroom.is_trusted", bool)


class Guard:
    """A middleware that checks each request before its handler gets it."""

    def __init__(self, *, host: str, token: Token, open_paths: frozenset[str], rate_limit: float | None) -> None:
        self._host = host
        self._token = token
        self._open_paths = open_paths
        self._rates = None if rate_limit is None else RateLimit(rate_limit)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass a request on to its handler, or raise :class:`ApiError`."""
        path = _path(request)
        is_open, is_probe = path in self._open_paths, path in _PROBES
        # A probe from the address of a busy client is answered: one that is not ends the worker, with its sessions.
        # But it is no way to try tokens at a higher rate.
        wait = 0.0 if is_probe and "Authorization" not in request.headers else self._wait(request)
        if wait > 0 and not is_probe:
            raise self._too_many(wait)
        _check_target(request)
        token = self._token.current
        if token is None:
            self._check_host(request)
        if not is_open:
            _check_origin(request)
        request[_IS_TRUSTED] = token is None or (wait == 0 and _has_token(request, token))
        if not is_open and not is_trusted(request):
            message = "this needs the worker's token, as a header: Authorization: Bearer TOKEN"
            raise ApiError(401, "unauthorized", message)
        return await handler(request)

    def _wait(self, request: web.Request) -> float:
        """Count a request; return the seconds that it has come too early."""
        return 0.0 if self._rates is None else self._rates.take(request.remote or "")

    def _too_many(self, wait: float) -> ApiError:
        assert self._rates is not None  # or there would be no waiting
        message = f"too many requests: more than {self._rates.rate:g} a second (rate_limit) from this address"
        return ApiError(429, "too_many_requests", message, retry_after=wait)

    def _check_host(self, request: web.Request) -> None:
        # A web page can have its own host name point to 127.0.0.1 (DNS rebinding), but it cannot change this header.
        # With a token this is not needed: such a page does not have it. (Not request.host: without a header that is
        # the machine's own name, by a look-up that may block.)
        for host in (request.headers.get("Host", ""), target_host(request.raw_path)):
            if host is not None and host_name(host) not in {*_LOCAL_NAMES, self._host}:
                message = f"the Host header is {ascii_only(host)!r}; use localhost or {self._host}"
                raise ApiError(403, "wrong_host", message)


def _path(request: web.Request) -> str:
    """Return the path of the operation that will answer, whatever the request's own path looks like."""
    resource = request.match_info.route.resource
    return request.path if resource is None else resource.canonical


def _check_target(request: web.Request) -> None:
    if not request.raw_path.startswith("/") and request.raw_path != "*" and not is_absolute(request.raw_path):
        raise ApiError(400, "bad_request", "the target of the request is neither a path nor an http URL")


def _check_origin(request: web.Request) -> None:
    """Raise :class:`ApiError` for a request that a browser sends for a page of another site.

    Such a page could start sessions, though it cannot read the answers. A token alone does not prevent that: a proxy
    may add it to whatever a browser sends.
    """
    hosts = [request.headers.get("Host", ""), *request.headers.get("X-Forwarded-Host", "").split(",")]
    if not is_of_another_site(request.headers, request.headers.getall("Sec-Fetch-Site", []), filter(None, hosts)):
        return
    if request.method in ("GET", "HEAD") and request.headers.get("Sec-Fetch-Dest") == "document":
        return  # a link that somebody follows
    raise ApiError(
        403,
        "wrong_origin",
        "a page of another site sent this request. Use the worker's own page or a program; a proxy in front of the "
        "worker must send the host that its clients ask for, as X-Forwarded-Host",
    )


def is_trusted(request: web.Request) -> bool:
    """Tell whether a request may see all: it has the token, or the worker has none."""
    return bool(request.get(_IS_TRUSTED))


def _has_token(request: web.Request, token: bytes) -> bool:
    given = request.headers.getall("Authorization", [])
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    # compare_digest takes as long whatever is given, so that a token cannot be found byte by byte.
    is_right = hmac.compare_digest(credentials.strip(" ").encode("utf-8", "surrogateescape"), token)
    return is_right and scheme.lower() == "bearer"


class RateLimit:
    """A token bucket for each client: an IPv4 address, or an IPv6 network (/64), all of which one host can use.

    A bucket holds the requests of two seconds, or one request if that is more.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._burst = max(2 * rate, 1.0)
        self._now = now
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Count a request; return 0 if it may be served, else the seconds until the next one may be."""
        client, now = network_of(address), self._now()
        left, at = self._clients.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._clients[client] = (left if wait else left - 1, now)
        while len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return wait
