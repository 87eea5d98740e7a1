"""Checks that each request passes first: token, host name, origin, request rate."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from ...clean_text import ascii_only
from ...token_bucket import TokenBucket
from .connections import network_of
from .hosts import host_name, is_absolute, is_of_another_site, target_host
from .schema import ApiError
from .token import Token

__all__ = ["Guard", "RateLimit", "is_trusted"]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBES = frozenset({"/livez", "/readyz"})
"""Paths that are answered at any request rate."""
_MOST_CLIENTS = 10_000
_IS_TRUSTED = web.RequestKey("greenroom.is_trusted", bool)


class Guard:
    """Middleware that checks each request before its handler runs."""

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
        # Probes are answered at any rate: after a failed probe, an orchestrator ends the worker with its jobs.
        # A probe with a token counts all the same. Else a client could try tokens at a higher rate.
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
            message = "this needs the worker's token. Send the header Authorization: Bearer TOKEN"
            raise ApiError(401, "unauthorized", message)
        return await handler(request)

    def _wait(self, request: web.Request) -> float:
        """Count a request. Return the seconds by which the request came too early."""
        return 0.0 if self._rates is None else self._rates.take(request.remote or "")

    def _too_many(self, wait: float) -> ApiError:
        assert self._rates is not None  # only a rate limit makes a client wait
        message = f"too many requests: more than {self._rates.rate:g} per second (rate_limit) from this address"
        return ApiError(429, "too_many_requests", message, retry_after=wait)

    def _check_host(self, request: web.Request) -> None:
        # A web page can let its own host name point to 127.0.0.1 (DNS rebinding), but it cannot change this header.
        # A worker with a token needs no such check, because the page does not have the token. request.host is not used:
        # without the header, aiohttp looks up the machine's own name, which may block.
        for host in (request.headers.get("Host", ""), target_host(request.raw_path)):
            if host is not None and host_name(host) not in {*_LOCAL_NAMES, self._host}:
                message = f"the Host header is {ascii_only(host)!r}; use localhost or {self._host}"
                raise ApiError(403, "wrong_host", message)


def _path(request: web.Request) -> str:
    """Return the path of the operation that will answer. The request may have written the path in another way."""
    resource = request.match_info.route.resource
    return request.path if resource is None else resource.canonical


def _check_target(request: web.Request) -> None:
    if not request.raw_path.startswith("/") and request.raw_path != "*" and not is_absolute(request.raw_path):
        raise ApiError(400, "bad_request", "the target of the request is neither a path nor an http URL")


def _check_origin(request: web.Request) -> None:
    """Raise :class:`ApiError` for a request that a browser sends for a page of another site.

    Such a page could start jobs, though it cannot read the answers. A token alone does not prevent that, because a
    proxy may add the token to all requests of a browser.
    """
    hosts = [request.headers.get("Host", ""), *request.headers.get("X-Forwarded-Host", "").split(",")]
    if not is_of_another_site(request.headers, request.headers.getall("Sec-Fetch-Site", []), filter(None, hosts)):
        return
    if request.method in ("GET", "HEAD") and request.headers.get("Sec-Fetch-Dest") == "document":
        return  # a link that a user follows
    raise ApiError(
        403,
        "wrong_origin",
        "a page of another site sent this request. Use the worker's own page or a program. A proxy in front of the "
        "worker must send the host that its clients request, as X-Forwarded-Host",
    )


def is_trusted(request: web.Request) -> bool:
    """Return true if a request may see all data: it has the token, or the worker has no token."""
    return bool(request.get(_IS_TRUSTED))


def _has_token(request: web.Request, token: bytes) -> bool:
    given = request.headers.getall("Authorization", [])
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    # compare_digest takes the same time for each input, so that a token cannot be found byte by byte.
    is_right = hmac.compare_digest(credentials.strip(" ").encode("utf-8", "surrogateescape"), token)
    return is_right and scheme.lower() == "bearer"


class RateLimit:
    """Rate limit for each client, by token buckets.

    A client is an IPv4 address or an IPv6 network (/64). One host can use all IPv6 addresses of its network. A bucket
    holds the requests of 2 s, and at least one request.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._now = now
        self._clients: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str) -> float:
        """Count a request. Return 0 if it may be served, else the seconds until the next request may be served."""
        client = network_of(address)
        bucket = self._clients.pop(client, None) or TokenBucket(self.rate, max(2 * self.rate, 1.0), now=self._now)
        self._clients[client] = bucket
        while len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        left = bucket.left()
        if left < 1:
            return (1 - left) / self.rate
        bucket.spend(1)
        return 0.0
