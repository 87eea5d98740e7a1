"""Connections of a command to its workers: the options ``--url``, ``--token`` and ``--token-file``."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ..errors import OptionError
from ..settings.environment import URL_VARIABLE
from ..settings.token import read_token, token_problem
from ..settings.values import BLANKS
from ..settings.worker_options import RANDOM_TOKENS
from .control_token import token_of_worker

if TYPE_CHECKING:
    from .client import Client
    from .workers import Workers

__all__ = ["DEFAULT_URL", "Connection", "Connections", "JsonOption", "with_connection", "with_connections"]

DEFAULT_URL = "http://127.0.0.1:8700"

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_UrlOption = Annotated[
    list[str],
    typer.Option(
        "--url",
        help="Address of the worker. For several workers: --url for each, or all with commas between them.",
        envvar=URL_VARIABLE,
        metavar="URL",
    ),
]
_TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Token, if the worker needs one; the same for all workers. Prefer the variable: lists of processes show "
        "options.",
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
_OFF = ("off", "none")
_NO_TOKEN = ("", *_OFF, *RANDOM_TOKENS)
"""Values of the setting ``token`` that are no token: the worker makes one, or has none."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of a worker, and its token. Raises ``OptionError`` if the address or the token is invalid."""

    url: str
    token: str | None = field(default=None, repr=False)
    is_from_worker: bool = False
    """True if the worker itself has been asked for the token."""

    def __post_init__(self) -> None:
        problem = _problem(self.url)
        if problem:
            raise OptionError(f"the URL is {self.url!r}; {problem}. Example: {DEFAULT_URL}")
        token_is = None if self.token is None else token_problem(self.token)
        if token_is:
            raise OptionError(f"the token {token_is}")

    def open(self) -> Client:
        """Return a client, to be used as an async context manager."""
        from .client import Client  # imported late: the HTTP library would slow down the help

        new_token = functools.partial(token_of_worker, self.url) if self.is_from_worker else None
        return Client(self.url.rstrip("/"), self.token, new_token)


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections to the workers that a command asks, in the order of their addresses."""

    each: tuple[Connection, ...]

    @classmethod
    def of(cls, urls: Sequence[str], token: str | None, token_file: str | None) -> Connections:
        """Return the connections for these options. Blanks around a value do not count. ``off`` stands for no token.

        A token that is given is sent to all these addresses. Without any, each worker on this machine is asked for its
        own token, which is sent to that worker alone.
        """
        stripped = [(text or "").strip(BLANKS) for text in (token, token_file)]
        given, file = (None if text in _NO_TOKEN else text for text in stripped)
        if given and file:
            raise OptionError(
                "the token (--token, GREENROOM_TOKEN) and its file (--token-file, GREENROOM_TOKEN_FILE) are both set; "
                "leave one of them out"
            )
        if file:
            given = read_token(file)[0]
        # All are checked before the first worker is asked.
        connections = cls(tuple(Connection(url, given) for url in _addresses(urls)))
        return connections if given is not None or stripped[0] in _OFF else connections._with_own_tokens()

    @property
    def only(self) -> Connection:
        """Return the connection to the only worker. Raises ``OptionError`` if there are several."""
        self.require_one("Name one of them with --url")
        return self.each[0]

    def require_one(self, remedy: str) -> None:
        """Raise ``OptionError`` with this remedy if there are several workers."""
        if len(self.each) > 1:
            named = ", ".join(connection.url for connection in self.each)
            raise OptionError(f"the command is for one worker, but {len(self.each)} are given: {named}. {remedy}")

    def open(self) -> Workers:
        """Return the clients of all workers, to be used as an async context manager."""
        from .workers import Workers  # imported late: the HTTP library would slow down the help

        return Workers([connection.open() for connection in self.each])

    def _with_own_tokens(self) -> Connections:
        urls = [connection.url for connection in self.each]
        with ThreadPoolExecutor(len(urls)) as threads:  # a worker that stands still must not delay the others' answers
            tokens = list(threads.map(token_of_worker, urls))
        return Connections(
            tuple(Connection(url, token, is_from_worker=True) for url, token in zip(urls, tokens, strict=True))
        )


def _addresses(texts: Sequence[str]) -> list[str]:
    """Return the addresses in these texts, each once. Commas separate addresses."""
    found: dict[str, str] = {}
    for part in ",".join(texts).split(","):
        url = part.strip(BLANKS)
        if url:
            found.setdefault(url.rstrip("/"), url)
    return list(found.values()) or [""]


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
    """Give a command for one worker the options of a connection. The command gets ``connection`` from them."""
    return _with_options(command, "connection", lambda connections: connections.only)


def with_connections(command: Callable[..., Awaitable[int]]) -> Callable[..., int]:
    """Give a command the options of its connections. The command gets ``connections`` from them."""
    return _with_options(command, "connections", lambda connections: connections)


def _with_options(
    command: Callable[..., Awaitable[int]], filled: str, choose: Callable[[Connections], Connection | Connections]
) -> Callable[..., int]:
    """Replace the first parameter of a command, ``filled``, by the options of connections."""
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name != filled]
    url = inspect.Parameter("url", _KEYWORD, default=[DEFAULT_URL], annotation=_UrlOption)
    token = inspect.Parameter("token", _KEYWORD, default=None, annotation=_TokenOption)
    file = inspect.Parameter("token_file", _KEYWORD, default=None, annotation=_TokenFileOption)

    @functools.wraps(command)
    def run(*, url: list[str], token: str | None, token_file: str | None, **values: Any) -> int:
        return asyncio.run(_awaited(command(choose(Connections.of(url, token, token_file)), **values)))

    # typer reads the signature of the function.
    seen: Any = run
    seen.__signature__ = inspect.Signature([*kept, url, token, file])
    seen.__annotations__ = {}
    del seen.__wrapped__
    return run


async def _awaited(result: Awaitable[int]) -> int:
    return await result
