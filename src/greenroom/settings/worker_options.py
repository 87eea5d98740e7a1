"""Settings of the worker's server, with their defaults and checks."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal

from ..errors import OptionError
from ..options import PoolOptions
from .token import length_problem, token_problem

__all__ = ["KNOWN_CLIENTS", "MARGIN", "RANDOM_TOKENS", "LogOptions", "ServerOptions", "is_loopback", "longest_stop"]

KNOWN_CLIENTS = "auto"
"""Value of ``token`` with which clients need none that no session has started."""
RANDOM_TOKENS = (KNOWN_CLIENTS, "required")
"""Values of ``token`` with which the worker makes a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Settings of a worker's API, and of its end."""

    host: str = "127.0.0.1"
    """Address to listen on. An address other than loopback needs a ``token``, a ``token_file`` or a
    ``tls_client_ca``."""
    port: int = 8700
    """Port to listen on; 0 picks a free port, which the log names."""
    health_port: int | None = None
    """Second port, for probes. The port answers only ``/``, ``/livez`` and ``/readyz``, without a token. The worker
    opens the port when the app has loaded; 0 picks a free port, which the log names."""
    health_host: str = ""
    """Address to listen on for ``health_port``. Empty: all IPv4 and IPv6 addresses of this machine."""
    worker_name: str | None = field(default=None, metadata={"none": "auto"})
    """Name of this worker among several: up to 32 of the characters ``a-z``, ``0-9`` and ``-``. ``auto``: the first
    label of the host name. The ids of its jobs begin with the name, and each answer of the API has it as
    ``Greenroom-Worker``."""
    offer_timeout: float = 1.0
    """Longest wait of an offered job for a process, if none is idle. The job is rejected at once if no process can be
    warm in time. With 0, the job is rejected at once if no process is idle."""
    min_free_memory_mb: float | None = 128.0
    """Memory that stays free. A job is rejected if it would leave less. The memory of earlier jobs is the estimate for
    a new job."""
    max_cpu_wait_ms: float | None = 0.5
    """Longest mean wait (ms) of running jobs for a CPU, each time that they have work. A job is rejected if running
    jobs wait longer, or would wait longer beside one more. Long waits make audio late."""
    drain_timeout: float = 60.0
    """Time that accepted jobs may go on after SIGTERM or Ctrl-C. The default of LiveKit apps is 3600 s under ``start``,
    unless the app sets another value."""
    max_request_bytes: int = 1024 * 1024
    """Largest body of a request, in bytes."""
    max_connections: int = 1000
    """Most connections to the API at the same time. A low limit on open files lowers this number, since files for
    ``max_jobs`` jobs are kept free. Above the number, the connection that is idle longest is closed for a new one."""
    token: str | None = field(default=KNOWN_CLIENTS, metadata={"secret": True, "never_empty": True}, repr=False)
    """Token that clients must send (``Authorization: Bearer ...``), except to ``/livez`` and ``/readyz``. A token has
    at least 16 printable ASCII characters. An empty token is an error. With ``auto`` and ``required``, the worker makes
    a random one, which ``greenroom token`` prints, and which commands on the same machine get by themselves. With
    ``auto``, processes on the same machine need none, if they belong to the worker's user or to root, and no session
    has started them. With ``off``, nobody needs a token, sessions included."""
    token_file: str | None = field(default=None, metadata={"secret_file": True, "never_empty": True})
    """File that holds the token, such as a mounted secret. The worker reads it again when it changes."""
    view_token: str | None = field(default=None, metadata={"secret": True, "never_empty": True}, repr=False)
    """Second token, with which clients can only read: the pages, the API's ``GET``, events and metrics. It needs a
    ``token``, a ``token_file`` or a ``tls_client_ca`` beside it."""
    tls_cert: str | None = field(default=None, metadata={"never_empty": True})
    """File with the certificate (PEM) of the API's address, and those that lead to its authority. The API then speaks
    HTTPS. A changed file needs a restart."""
    tls_key: str | None = field(default=None, metadata={"secret_file": True, "never_empty": True})
    """File with the key of ``tls_cert`` (PEM, not encrypted). ``off``: the key is in the file of the certificate."""
    tls_client_ca: str | None = field(default=None, metadata={"never_empty": True})
    """File with the certificates (PEM) of those who sign certificates of clients. A client that shows such a
    certificate is trusted as with the token. Others need the token, if there is one."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Host`` are believed, such as
    ``10.0.0.5,10.1.0.0/16``. Behind them, ``rate_limit`` counts each client by its own address."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names by which clients reach a worker without a token, such as the public name of a proxy."""
    shown_metadata: tuple[str, ...] = ("all",)
    """Metadata of jobs that the page, the API and commands show: ``all``, ``none``, or names of keys. Jobs can be found
    by it. It may hold names or phone numbers of callers. Keys that are named here are in the JSON log, too."""
    history: str | None = "auto"
    """File with the records of jobs, their logs and reports, which stay after a kill of the worker. ``auto``: the file
    ``history.db`` in systemd's ``STATE_DIRECTORY``, if there is one. ``off``: only the latest 1,000, in memory."""
    history_days: float = 7.0
    """Age (days) at which records are removed from ``history``."""
    history_mb: float = 512.0
    """Largest size of ``history``, in MiB. Above it, the oldest records are removed."""
    sessions_may: Literal["none", "start", "all"] = "none"
    """What sessions may do by the API of a worker that has a token. ``start``: start jobs, and show and cancel those.
    ``all``: everything. They get ``GREENROOM_URL`` and a token of their own as ``GREENROOM_TOKEN``."""
    rate_limit: float | None = 1000.0
    """Requests per second from one address (IPv6: from one /64 network), on average. Bursts may have twice as many."""
    tracing: Literal["auto", "on", "off"] = "auto"
    """OpenTelemetry spans of jobs. ``auto`` sends them if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and the packages are
    there (``pip install 'greenroom[otel]'``). ``on`` sends them to port 4318 of this host if no endpoint is set."""
    flight_recorder_dir: str | None = "/dev/shm"
    """Folder for the flight recording, which should be in memory. After a crash of the worker the recording is still
    there, and the next worker logs its path. ``off``: nothing is kept after a crash."""

    def __post_init__(self) -> None:
        self._check_tls()
        self._check_token()
        self._check_proxies()
        if self.worker_name is not None and not re.fullmatch("[a-z0-9-]{1,32}", self.worker_name):
            raise OptionError(f"worker_name is {self.worker_name!r}; it must be 1 to 32 of a-z, 0-9 and -")
        if self.history == "":
            raise OptionError("history is empty; it must be the path of a file, auto, or off")
        for name, value in (("history_days", self.history_days), ("history_mb", self.history_mb)):
            if not 0 < value < 10**9:
                raise OptionError(f"{name} is {value!r}; it must be a number above 0")
        if self.flight_recorder_dir == "":
            raise OptionError("flight_recorder_dir is empty; it must be the path of a folder, or off")
        if len(self.shown_metadata) != 1 and {"all", "none"} & set(self.shown_metadata):
            shown = ",".join(self.shown_metadata)
            raise OptionError(f"shown_metadata is {shown!r}; it must be all, none, or a list of keys")
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
        if self.max_cpu_wait_ms is not None and not 0 < self.max_cpu_wait_ms < 10**9:
            raise OptionError(f"max_cpu_wait_ms is {self.max_cpu_wait_ms!r}; it must be a number of ms above 0, or off")
        if self.rate_limit is not None and not 0 < self.rate_limit < 10**9:
            raise OptionError(f"rate_limit is {self.rate_limit!r}; it must be a number of requests above 0, or off")
        if self.max_request_bytes < 1:
            raise OptionError(f"max_request_bytes is {self.max_request_bytes}; it must be at least 1")
        if self.max_connections < 1:
            raise OptionError(f"max_connections is {self.max_connections}; it must be at least 1")

    def _check_tls(self) -> None:
        for name in ("tls_cert", "tls_key", "tls_client_ca"):
            if getattr(self, name) == "":
                raise OptionError(f"{name} is empty; it must be the path of a file, or off")
            if self.tls_cert is None and getattr(self, name) is not None:
                raise OptionError(f"{name} is set, but the API speaks no TLS: set tls_cert, too")

    def _check_proxies(self) -> None:
        for text in self.trusted_proxies:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise OptionError(
                    f"trusted_proxies has {text!r}: {error}. Each must be an address or a network, such as 10.0.0.5 or "
                    "10.1.0.0/16"
                ) from None
        for name in self.allowed_hosts:
            if not re.fullmatch("[A-Za-z0-9._-]+", name):
                raise OptionError(f"allowed_hosts has {name!r}; each must be a host name without a port")

    def _check_token(self) -> None:
        is_given = self.token is not None and self.token not in RANDOM_TOKENS
        problem = token_problem(self.token or "") or length_problem(self.token or "") if is_given else None
        if problem:
            raise OptionError(f"token {problem}")
        if self.view_token is not None:
            problem = token_problem(self.view_token) or length_problem(self.view_token)
            if problem:
                raise OptionError(f"view_token {problem}")
            if self._is_open or self.has_known_clients:
                raise OptionError("view_token is set, but clients may write without it: set token or token_file, too")
            if self.view_token == self.token:
                raise OptionError("view_token is the same as token; with it, clients could write")
        if self.token_file == "":
            raise OptionError("token_file is empty, so every client would have access. Set the path of a file, or off")
        if self.token not in (None, KNOWN_CLIENTS) and self.token_file is not None:
            raise OptionError("token and token_file are both set; leave one of them out, or set it to off")
        if self.sessions_may != "none" and self._is_open:
            raise OptionError(
                f"sessions_may is {self.sessions_may!r}, but with token = off every client may do all: leave token out"
            )
        is_closed = is_given or self.token_file is not None or self.tls_client_ca is not None
        if not is_closed and not is_loopback(self.host):
            raise OptionError(
                f"host is {self.host!r}, and no token is set: every client that reaches the API could start processes, "
                "or none could. Set token (GREENROOM_TOKEN) or token_file (GREENROOM_TOKEN_FILE), or tls_client_ca for "
                "clients with certificates, or listen on a loopback address such as 127.0.0.1"
            )

    @property
    def has_known_clients(self) -> bool:
        """True if clients on this machine need no token, unless a session has started them."""
        is_closed = self.token_file is not None or self.tls_client_ca is not None
        return self.token == KNOWN_CLIENTS and not is_closed and is_loopback(self.host)

    @property
    def _is_open(self) -> bool:
        """True if clients need neither a token nor a certificate."""
        return self.token is None and self.token_file is None and self.tls_client_ca is None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


MARGIN = 30.0
"""Seconds beyond the deadlines of the settings: for stack dumps, kills, reaping, the zygote's end, the last scrape of
the metrics and the last answers."""


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
