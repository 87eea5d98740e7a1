"""Settings of the worker's server, with their defaults and checks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from ..errors import OptionError
from ..options import PoolOptions
from .token import length_problem, token_problem

__all__ = ["MARGIN", "LogOptions", "ServerOptions", "longest_stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Settings of a worker's API, and of its end."""

    host: str = "127.0.0.1"
    """Address to listen on. An address other than loopback needs a ``token`` or a ``token_file``."""
    port: int = 8700
    """Port to listen on; 0 picks a free port, which the log names."""
    health_port: int | None = None
    """Second port, for probes. The port answers only ``/``, ``/livez`` and ``/readyz``, without a token. The worker
    opens the port when the app has loaded; 0 picks a free port, which the log names."""
    health_host: str = ""
    """Address to listen on for ``health_port``. Empty: all IPv4 and IPv6 addresses of this machine."""
    offer_timeout: float = 1.0
    """Longest wait of an offered job for a process, if none is idle. The job is rejected at once if no process can be
    warm in time. With 0, the job is rejected at once if no process is idle."""
    min_free_memory_mb: float | None = 128.0
    """Memory that stays free. A job is rejected if it would leave less. The memory of earlier jobs is the estimate for
    a new job."""
    drain_timeout: float = 60.0
    """Time that accepted jobs may go on after SIGTERM or Ctrl-C. The default of LiveKit apps is 3600 s under ``start``,
    unless the app sets another value."""
    max_request_bytes: int = 1024 * 1024
    """Largest body of a request, in bytes."""
    max_connections: int = 1000
    """Most connections to the API at the same time. A low limit on open files lowers this number, since files for
    ``max_jobs`` jobs are kept free. Above the number, the connection that is idle longest is closed for a new one."""
    token: str | None = field(default=None, metadata={"secret": True, "never_empty": True}, repr=False)
    """Token that clients must send (``Authorization: Bearer ...``), except to ``/livez`` and ``/readyz``. A token has
    at least 16 printable ASCII characters. An empty token is an error. With ``off``, clients need no token."""
    token_file: str | None = field(default=None, metadata={"secret_file": True, "never_empty": True})
    """File that holds the token, such as a mounted secret. The worker reads it again when it changes."""
    rate_limit: float | None = 1000.0
    """Requests per second from one address (IPv6: from one /64 network), on average. Bursts may have twice as many."""
    tracing: Literal["auto", "on", "off"] = "auto"
    """OpenTelemetry spans of jobs. ``auto`` sends them if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and the packages are
    there (``pip install 'greenroom[otel]'``). ``on`` sends them to port 4318 of this host if no endpoint is set."""
    flight_recorder_dir: str | None = "/dev/shm"
    """Folder for the flight recording, which should be in memory. After a crash of the worker the recording is still
    there, and the next worker logs its path. ``off``: nothing is kept after a crash."""

    def __post_init__(self) -> None:
        self._check_token()
        if self.flight_recorder_dir == "":
            raise OptionError("flight_recorder_dir is empty; it must be the path of a folder, or off")
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
            raise OptionError("token_file is empty, so every client would have access. Set the path of a file, or off")
        if self.token is not None and self.token_file is not None:
            raise OptionError("token and token_file are both set; leave one of them out, or set it to off")
        if self.token is None and self.token_file is None and not _is_loopback(self.host):
            raise OptionError(
                f"host is {self.host!r}, and there is no token: every client that reaches the API could start "
                "processes. Set token (GREENROOM_TOKEN) or token_file (GREENROOM_TOKEN_FILE), or listen on a loopback "
                "address such as 127.0.0.1"
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


MARGIN = 15.0
"""Seconds beyond the deadlines of the settings: for stack dumps, kills, reaping, the zygote's end and last answers."""


def longest_stop(pool: PoolOptions, drain_timeout: float) -> float:
    """Return the longest time from SIGTERM to the worker's exit, in seconds.

    A job that outlasts the drain has ``shutdown_timeout`` to stop, and the same time again for its shutdown callbacks.
    Then its process has ``cleanup_timeout`` to exit.
    """
    return drain_timeout + 2 * pool.shutdown_timeout + pool.cleanup_timeout + MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Settings of the log."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged, of Greenroom and of the app."""
    log_format: Literal["human", "json"] = "human"
    """Format of the log: lines for people, or one JSON object for each line."""
    slow_callback_ms: float | None = None
    """For debugging: CPU time (ms) above which a callback of the worker's event loop is logged with its name."""

    def __post_init__(self) -> None:
        if self.slow_callback_ms is not None and not 0 < self.slow_callback_ms < 10**9:
            raise OptionError(
                f"slow_callback_ms is {self.slow_callback_ms!r}; it must be a number of ms above 0, or off"
            )
