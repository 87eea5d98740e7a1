"""The settings of the worker: declared once, here, and passed on whole."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from ..errors import OptionError
from .token import length_problem, token_problem

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a worker is reached, and how it ends."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than a loopback address needs a ``token`` or a ``token_file``."""
    port: int = 8700
    """Port to listen on; 0 picks a free one, which the log names."""
    health_port: int | None = None
    """Another port, for probes: ``/``, ``/livez`` and ``/readyz`` are answered there, without a token, and nothing
    else. It is opened when the app has loaded; 0 picks a free one, which the log names."""
    health_host: str = ""
    """Address to listen on for ``health_port``. Empty: all addresses of this machine, IPv6 ones too if it has them."""
    offer_timeout: float = 1.0
    """How long a session that is offered may wait for a process that is on its way, if none is idle. It is turned
    down at once if none can be there in time; 0: whenever none is idle."""
    min_free_memory_mb: float | None = 128.0
    """No session is taken that would leave the machine less free memory than this, by what sessions cost so far."""
    drain_timeout: float = 60.0
    """After SIGTERM or Ctrl-C: how long accepted jobs may go on, in seconds. LiveKit apps have 3600 s under ``start``
    if neither they nor you set it."""
    max_request_bytes: int = 1024 * 1024
    """Largest request body that is read."""
    max_connections: int = 1000
    """Connections to the API at any one time, or fewer where open files are scarce: those of ``max_jobs`` sessions are
    kept back. Above that, the one that is idle longest is closed for a new one."""
    token: str | None = field(default=None, metadata={"secret": True, "never_empty": True}, repr=False)
    """The token that clients must send (``Authorization: Bearer ...``), except to ``/livez`` and ``/readyz``: at least
    16 printable ASCII characters. An empty one is an error; ``off`` means that clients need none."""
    token_file: str | None = field(default=None, metadata={"secret_file": True, "never_empty": True})
    """A file that holds the token instead, such as a mounted secret. The worker reads it again when it changes."""
    rate_limit: float | None = 1000.0
    """Requests per second from one address (IPv6: from one /64 network), on average; for a moment, twice that."""
    tracing: Literal["auto", "on", "off"] = "auto"
    """Whether sessions are sent as OpenTelemetry spans. ``auto``: if ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to, and
    the packages are there (``pip install 'greenroom[otel]'``); ``on``: to port 4318 of this host if it does not."""

    def __post_init__(self) -> None:
        self._check_token()
        if not 0 <= self.port <= 65535:
            raise OptionError(f"port is {self.port}; it must be between 0 and 65535")
        if self.health_port is not None and not 0 <= self.health_port <= 65535:
            raise OptionError(f"health_port is {self.health_port}; it must be between 0 and 65535, or off")
        if not 0 < self.drain_timeout < 10**9:
            raise OptionError(f"drain_timeout is {self.drain_timeout!r}; it must be a number of seconds above 0")
        if not 0 <= self.offer_timeout < 10**9:
            raise OptionError(f"offer_timeout is {self.offer_timeout!r}; it must be a number of seconds, or 0")
        if self.min_free_memory_mb is not None and not 0 <= self.min_free_memory_mb < 10**9:
            raise OptionError(f"min_free_memory_mb is {self.min_free_memory_mb!r}; it must be a number of MiB, or off")
        if self.rate_limit is not None and not 0 < self.rate_limit < 10**9:
            raise OptionError(f"rate_limit is {self.rate_limit!r}; it must be a number of requests above 0, or off")
        if self.max_request_bytes < 1:
            raise OptionError(f"max_request_bytes is {self.max_request_bytes}; it must be at least 1")
        if self.max_connections < 1:
            raise OptionError(f"max_connections is {self.max_connections}; it must be at least 1")

    def _check_token(self) -> None:
        problem = None if self.token is None else token_problem(self.token) or length_problem(self.token)
        if problem:
            raise OptionError(f"token {problem}")
        if self.token_file == "":
            raise OptionError("token_file is empty; set the path of a file, or off: without a token everybody gets in")
        if self.token is not None and self.token_file is not None:
            raise OptionError("token and token_file are both set; leave one of them out, or set it to off")
        if self.token is None and self.token_file is None and not _is_loopback(self.host):
            raise OptionError(
                f"host is {self.host!r}, and there is no token; whoever reaches the API can start processes, so set "
                "token (GREENROOM_TOKEN) or token_file (GREENROOM_TOKEN_FILE), or listen on a loopback address such as "
                "127.0.0.1"
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
