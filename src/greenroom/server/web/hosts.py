"""Host names and origins of requests, read strictly. Pure.

URL libraries accept as much as they can. For example, such libraries find ``localhost`` in ``evil.com@localhost``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

__all__ = ["host_name", "is_absolute", "is_of_another_site", "target_host"]

# RFC 9110, section 7.2: uri-host [ ":" port ]. A user, a path or a blank is not allowed.
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{0,5}))?")
_ABSOLUTE = re.compile(r"https?://(?P<host>[^/?#]*).*", re.IGNORECASE | re.DOTALL)
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\s]+)")
_LARGEST_PORT = 65535
_OWN_PAGES = ("same-origin", "none")


def host_name(header: str) -> str | None:
    """Return the name in a ``Host`` header in lower case, without its port; ``None`` if the header is malformed."""
    match = _HOST.fullmatch(header)
    if match is None or int(match["port"] or 0) > _LARGEST_PORT:
        return None
    if match["v6"] is not None:
        return _address(match["v6"])
    return match["name"].lower().removesuffix(".")


def is_absolute(target: str) -> bool:
    """Return true if a request's target is a whole URL, as clients send it to proxies."""
    return _ABSOLUTE.fullmatch(target) is not None


def target_host(target: str) -> str | None:
    """Return the host of a target that is a whole URL, else ``None``.

    The host in the target overrides the ``Host`` header (RFC 9112, section 3.2.2).
    """
    match = _ABSOLUTE.fullmatch(target)
    return None if match is None else match["host"]


def is_of_another_site(headers: Mapping[str, str], sites: Iterable[str], own: Iterable[str]) -> bool:
    """Return true if a browser sends this request for a page that is not the worker's own.

    ``sites`` are the values of ``Sec-Fetch-Site``, which browsers send to hosts that they trust. To other hosts,
    browsers send only ``Origin``, which must be one of the hosts ``own``. Programs send neither header. No page can
    change these headers.
    """
    fetch_sites = list(sites)
    if fetch_sites:
        return any(site not in _OWN_PAGES for site in fetch_sites)
    origin = headers.get("Origin")
    if origin is None:
        return False
    match = _ORIGIN.fullmatch(origin)
    return match is None or _without_usual_port(match["host"]) not in map(_without_usual_port, own)


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def _without_usual_port(host: str) -> str:
    return host.strip().lower().removesuffix(":80").removesuffix(":443")
