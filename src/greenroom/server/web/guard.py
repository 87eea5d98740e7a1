"""Checks that each request passes first: token, host name, origin, request rate."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from ...clean_text import ascii_only, cut_end
from ...settings import ServerOptions
from ...token_bucket import TokenBucket
from .connections import network_of
from .hosts import host_name, is_absolute, is_of_another_site, target_host
from .keys import Keys, Role, SessionJobs
from .proxies import TrustedProxies
from .schema import ApiError
from .throttled_warning import ThrottledWarning

__all__ = ["Guard", "RateLimit", "is_trusted", "note_start", "taken_from_sessions"]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBES = frozenset({"/livez", "/readyz"})
"""Paths that are answered at any request rate."""
_MOST_CLIENTS = 10_000
_IS_TRUSTED = web.RequestKey("greenroom.is_trusted", bool)
_ROLE = web.RequestKey("greenroom.role", Role)
_SESSION_JOBS = web.RequestKey("greenroom.session_jobs", SessionJobs)
_NO_TOKEN = (
    "this needs the worker's token. Send the header Authorization: Bearer TOKEN. `greenroom token` prints the token; a "
    "session gets one with the setting sessions_may"
)
_NO_CERTIFICATE = (
    "this needs a certificate that the worker trusts (tls_client_ca). Send it through the proxy that has one"
)


class Guard:
    """Middleware that checks each request before its handler runs."""

    def __init__(
        self,
        *,
        host: str,
        keys: Keys,
        open_paths: frozenset[str],
        options: ServerOptions,
        malformed: ThrottledWarning,
    ) -> None:
        """Prepare the checks. ``malformed`` warns of a trusted proxy whose headers cannot be read."""
        self._host = host
        self._names = {*_LOCAL_NAMES, host, *(name.lower().removesuffix(".") for name in options.allowed_hosts)}
        self._proxies = TrustedProxies(options.trusted_proxies)
        self._malformed = malformed
        self._keys = keys
        self._open_paths = open_paths | {"/metrics"} if keys.metrics_are_open else open_paths
        self._rates = None if options.rate_limit is None else RateLimit(options.rate_limit)

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
        if self._keys.open_to_some and "Authorization" not in request.headers:
            self._check_host(request)
        if not is_open:
            _check_origin(request, self._public_hosts(request))
        role = Role.STRANGER if wait > 0 else self._keys.role_of(request)
        if role is Role.STRANGER and not is_open and await self._keys.needs_none(request):
            self._check_host(request)  # also with a token: a page can send a wrong one
            role = Role.OWNER
        if role is Role.VIEWER and request.method not in ("GET", "HEAD"):
            raise ApiError(403, "read_only", "this token (view_token) can only read. Send the worker's token")
        request[_ROLE], request[_SESSION_JOBS] = role, self._keys.session_jobs
        request[_IS_TRUSTED] = role in (Role.OWNER, Role.VIEWER) or self._keys.open_to_some
        if not is_open:
            self._check_role(request, role, path)
        return await handler(request)

    def _check_role(self, request: web.Request, role: Role, path: str) -> None:
        if role is Role.STRANGER:
            raise ApiError(401, "unauthorized", _NO_CERTIFICATE if self._keys.want_certificate else _NO_TOKEN)
        if role is Role.SESSION:
            is_start = path == "/v1/jobs" and request.method == "POST"
            if not is_start and request.match_info.get("id") not in self._keys.session_jobs:
                message = "this token of sessions is for starting jobs, and for those jobs (sessions_may is start)"
                raise ApiError(403, "not_own_job", message)

    def _wait(self, request: web.Request) -> float:
        """Count a request. Return the seconds by which the request came too early."""
        return 0.0 if self._rates is None else self._rates.take(self._client_of(request))

    def _client_of(self, request: web.Request) -> str:
        """Return the address of a client, also of one behind a trusted proxy."""
        peer = request.remote or ""
        client = self._proxies.client_of(peer, request.headers.getall("X-Forwarded-For", []))
        if client.problem is not None:
            text = "the trusted proxy %s sends %s in X-Forwarded-For, which is no address. Its clients count as one"
            shown = ascii_only(repr(cut_end(client.problem, 100)))
            self._malformed.warn(text, client.address, shown, address=client.address)
        return client.address

    def _public_hosts(self, request: web.Request) -> list[str]:
        """Return the hosts that a proxy says its client has requested.

        A page of another site cannot set this header. So without ``trusted_proxies``, all proxies are believed.
        """
        if self._proxies.are_named and not self._proxies.trusts(request.remote or ""):
            return []
        values = ",".join(request.headers.getall("X-Forwarded-Host", [])).split(",")
        return [host for value in values if (host := value.strip())]

    def _too_many(self, wait: float) -> ApiError:
        assert self._rates is not None  # only a rate limit makes a client wait
        message = f"too many requests: more than {self._rates.rate:g} per second (rate_limit) from this address"
        return ApiError(429, "too_many_requests", message, retry_after=wait)

    def _check_host(self, request: web.Request) -> None:
        # A web page can let its own host name point to 127.0.0.1 (DNS rebinding), but it cannot change this header.
        # With a token no such check is needed, because the page does not have the token. request.host is not used:
        # without the header, aiohttp looks up the machine's own name, which may block.
        # A proxy that sends its own Host must pass the client's on, or a page could point its name to the proxy.
        hosts = [request.headers.get("Host", ""), target_host(request.raw_path)]
        if self._proxies.are_named:
            hosts += self._public_hosts(request)
        for host in hosts:
            if host is not None and host_name(host) not in self._names:
                message = (
                    f"the Host header is {ascii_only(host)!r}; use localhost or {self._host}, or add the name to "
                    "allowed_hosts"
                )
                raise ApiError(403, "wrong_host", message)


def _path(request: web.Request) -> str:
    """Return the path of the operation that will answer. The request may have written the path in another way."""
    resource = request.match_info.route.resource
    return request.path if resource is None else resource.canonical


def _check_target(request: web.Request) -> None:
    if not request.raw_path.startswith("/") and request.raw_path != "*" and not is_absolute(request.raw_path):
        raise ApiError(400, "bad_request", "the target of the request is neither a path nor an http URL")


def _check_origin(request: web.Request, public_hosts: list[str]) -> None:
    """Raise :class:`ApiError` for a request that a browser sends for a page of another site.

    Such a page could start jobs, though it cannot read the answers. A token alone does not prevent that, because a
    proxy may add the token to all requests of a browser.
    """
    hosts = [request.headers.get("Host", ""), *public_hosts]
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
    """Return true if a request may see all data: it has the token, or the worker has none for clients beside it."""
    return bool(request.get(_IS_TRUSTED))


def note_start(request: web.Request, job_id: str) -> None:
    """Note that a request has started a job. If a session has sent the request, sessions may show and cancel it."""
    if request[_ROLE] is Role.SESSION:
        request[_SESSION_JOBS].add(job_id)


@contextmanager
def taken_from_sessions(request: web.Request, job_id: str | None) -> Iterator[None]:
    """Take an id from sessions while a request that is not theirs has a job of this id accepted.

    A session can have used the id before, for a job that the worker has forgotten since. If the block raises, no other
    job has the id, and sessions get it back.
    """
    jobs = request[_SESSION_JOBS]
    was_theirs = request[_ROLE] is not Role.SESSION and jobs.discard(job_id)
    try:
        yield
    except BaseException:
        if was_theirs and job_id is not None:
            jobs.add(job_id)
        raise


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
