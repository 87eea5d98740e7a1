"""Connection of a command to its worker: the options ``--url``, ``--token`` and ``--token-file``."""

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
from ..settings.token import read_token, token_problem
from ..settings.values import BLANKS

if TYPE_CHECKING:
    from .client import Client

__all__ = ["DEFAULT_URL", "Connection", "JsonOption", "with_connection"]

DEFAULT_URL = "http://127.0.0.1:8700"

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_UrlOption = Annotated[str, typer.Option("--url", help="Address of the worker.", envvar=URL_VARIABLE, metavar="URL")]
_TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Token of the worker, if it has one. Prefer the variable: lists of processes show options.",
        envvar="GREENROOM_TOKEN",
        metavar="TOKEN",
    ),
]
_TokenFileOption = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        help="File that holds the token, instead of --token.",
        envvar="GREENROOM_TOKEN_FILE",
        metavar="FILE",
    ),
]
_NO_TOKEN = ("", "off", "none")
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of a worker, and its token. Raises ``OptionError`` if the address or the token is invalid."""

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        problem = _problem(self.url)
        if problem:
            raise OptionError(f"the URL is {self.url!r}; {problem}. Example: {DEFAULT_URL}")
        token_is = None if self.token is None else token_problem(self.token)
        if token_is:
            raise OptionError(f"the token {token_is}")

    @classmethod
    def of(cls, url: str, token: str | None, token_file: str | None) -> Connection:
        """Return the connection for these options. Blanks around a value do not count. ``off`` stands for no token."""
        stripped = [(text or "").strip(BLANKS) for text in (token, token_file)]
        given, file = (None if text in _NO_TOKEN else text for text in stripped)
        if given and file:
            raise OptionError(
                "the token (--token, GREENROOM_TOKEN) and its file (--token-file, GREENROOM_TOKEN_FILE) are both set; "
                "leave one of them out"
            )
        return cls(url.strip(BLANKS), read_token(file)[0] if file else given)

    def open(self) -> Client:
        """Return a client, to be used as an async context manager."""
        from .client import Client  # imported late: the HTTP library would slow down the help

        return Client(self.url.rstrip("/"), self.token)


def _problem(url: str) -> str | None:
    if not url.isprintable() or " " in url:  # the URL library would drop such characters without an error
        return "it must not contain blanks or control characters"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"{error}; it must be an address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it must begin with http:// or https:// and name a host"
    if parts.username or parts.query or parts.fragment:
        return "it must not have a user, a query or a fragment"
    return None


def with_connection(command: Callable[..., Awaitable[int]]) -> Callable[..., int]:
    """Give a command the options of a connection. The command gets its first parameter, ``connection``, from them."""
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "connection"]
    url = inspect.Parameter("url", _KEYWORD, default=DEFAULT_URL, annotation=_UrlOption)
    token = inspect.Parameter("token", _KEYWORD, default=None, annotation=_TokenOption)
    file = inspect.Parameter("token_file", _KEYWORD, default=None, annotation=_TokenFileOption)

    @functools.wraps(command)
    def run(*, url: str, token: str | None, token_file: str | None, **values: Any) -> int:
        return asyncio.run(_awaited(command(Connection.of(url, token, token_file), **values)))

    # typer reads the signature of the function.
    seen: Any = run
    seen.__signature__ = inspect.Signature([*kept, url, token, file])
    seen.__annotations__ = {}
    del seen.__wrapped__
    return run


async def _awaited(result: Awaitable[int]) -> int:
    return await result
