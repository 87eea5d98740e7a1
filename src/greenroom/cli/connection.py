"""How a command reaches its worker: the options ``--url`` and ``--token``, declared once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ..errors import OptionError
from ..settings.environment import URL_VARIABLE

if TYPE_CHECKING:
    from .client import Client

__all__ = ["DEFAULT_URL", "Connection", "JsonOption", "with_connection"]

DEFAULT_URL = "http://127.0.0.1:8700"

JsonOption = Annotated[bool, typer.Option("--json", help="As one JSON object.")]

_UrlOption = Annotated[str, typer.Option("--url", help="Where the worker is.", envvar=URL_VARIABLE, metavar="URL")]
_TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="The worker's token, if it has one. In the variable, no list of processes shows it.",
        envvar="GREENROOM_TOKEN",
        metavar="TOKEN",
    ),
]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a worker is, and what opens its door. ``OptionError`` if it cannot be there."""

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        problem = _problem(self.url)
        if problem:
            raise OptionError(f"the URL is {self.url!r}; {problem}, such as {DEFAULT_URL}")
        if self.token is not None and not self.token.isprintable():
            raise OptionError("the token holds a line break or another character that no header can hold")

    def open(self) -> Client:
        """A client, to be entered."""
        from .client import Client  # with its HTTP library, which the help should not wait for

        return Client(self.url.rstrip("/"), self.token)


def _problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"{error}; it must be an address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it must begin with http:// or https:// and name a host"
    if parts.username or parts.query or parts.fragment:
        return "it must be an address alone, without user, query or fragment"
    return None


def with_connection(command: Callable[..., Awaitable[int]]) -> Callable[..., int]:
    """Give a command the options that lead to a worker. It gets them as its first parameter, ``connection``."""
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "connection"]
    url = inspect.Parameter("url", _KEYWORD, default=DEFAULT_URL, annotation=_UrlOption)
    token = inspect.Parameter("token", _KEYWORD, default=None, annotation=_TokenOption)

    @functools.wraps(command)
    def run(*, url: str, token: str | None, **values: Any) -> int:
        return asyncio.run(_awaited(command(Connection(url, token or None), **values)))

    # For typer, which reads a function's signature.
    seen: Any = run
    seen.__signature__ = inspect.Signature([*kept, url, token])
    seen.__annotations__ = {}
    del seen.__wrapped__
    return run


async def _awaited(result: Awaitable[int]) -> int:
    return await result
