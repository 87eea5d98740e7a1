"""Arrival of requests, counted in stalls of the worker: how many were over before the first byte of a request came."""

from __future__ import annotations

from aiohttp import web

from ..stall_guard import StallGuard

__all__ = ["Arrivals", "stalls_before"]

_STALLS_BEFORE = web.RequestKey("greenroom.stalls_before", int)


class Arrivals:
    """Arrivals on one connection. Bytes that come before a request is answered count as its own."""

    __slots__ = ("_before", "_guard", "_is_next")

    def __init__(self, guard: StallGuard, before: int | None = None) -> None:
        """Begin a connection. ``before`` is the number for its first request, if that may have waited to be read."""
        self._guard = guard
        self._is_next = before is None
        """True if the next bytes begin a request."""
        self._before = before or 0

    def came(self) -> None:
        """Note that bytes were read."""
        if self._is_next:
            self._is_next = False
            self._before = self._guard.over

    def answered(self, *, may_have_more: bool) -> None:
        """Note that a request is answered. With ``may_have_more``, bytes of the next one may be here already."""
        self._is_next = not may_have_more

    def mark(self, request: web.BaseRequest) -> None:
        """Mark the present request with its number, for :func:`stalls_before`."""
        request[_STALLS_BEFORE] = self._before


def stalls_before(request: web.BaseRequest) -> int:
    """Return the number of stalls that were over before the first byte of a request came."""
    return request[_STALLS_BEFORE]
