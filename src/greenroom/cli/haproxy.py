"""HAProxy in front of several workers: the files of `greenroom init haproxy`. Pure, except that templates are read."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass

from ..errors import OptionError
from ..settings import ServerOptions
from ..settings.worker_options import KNOWN_CLIENTS, is_loopback
from .deployment import Plan, fill
from .haproxy_answers import NOT_FOUND, UNAUTHORIZED, error_files

__all__ = ["BIND", "Haproxy", "WorkerAddress", "haproxy_files", "read_worker", "server_options"]

CONFIG = "haproxy.cfg"
BIND = "127.0.0.1:8080"
HEADERS_BYTES = 32 * 1024
"""Room for the headers of a request, beside its body in one buffer of HAProxy."""
PAGE_BYTES = 16 * 1024
"""The size of a buffer is a multiple of this, HAProxy's default."""
START_MARGIN = 3.0
"""Seconds beyond the deadlines of a start, for a busy worker."""
TRIES_FOR_EACH_OTHER = 8
"""Tries of a lookup for each further worker. Other lookups take turns between two tries of one, so each try finds any
of the other workers. This many miss one of three workers once in 60,000 lookups."""

_NAME = re.compile(r"[a-z0-9-]{1,32}")
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)"
_ADDRESS = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")
_BIND = re.compile(rf"(?P<host>\*|{_HOST})?:(?P<port>[0-9]{{1,5}})")
_FILE = re.compile(r"(/[\w@%+=,.-]+)+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """A worker behind HAProxy: its ``worker_name``, and its address as ``HOST:PORT``."""

    name: str
    address: str

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Haproxy:
    """Options of HAProxy's configuration."""

    workers: tuple[WorkerAddress, ...]
    bind: str = BIND
    """Address and port for clients, as in HAProxy's ``bind``: ``HOST:PORT``, ``*:PORT`` or ``:PORT``."""
    rerun_broken: bool = False
    """True to repeat starts whose worker gave no answer. Such jobs may begin twice."""
    token_env: str = ""
    """Variable in HAProxy's environment that holds the token of its clients. Empty: HAProxy checks no token."""
    worker_ca: str = ""
    """Absolute path of the authorities that have signed the certificates of the workers. Empty: no TLS to workers."""
    proxy_cert: str = ""
    """Absolute path of HAProxy's certificate for the workers, with its key in the same file."""

    def __post_init__(self) -> None:
        self._check_workers()
        if not _has_port(_BIND.fullmatch(self.bind)):
            raise OptionError(f"bind is {self.bind!r}; it must be HOST:PORT, or :PORT for all addresses of the machine")
        if self.token_env and not _VARIABLE.fullmatch(self.token_env):
            raise OptionError(f"token_env is {self.token_env!r}; it must be the name of an environment variable")
        for name, path in (("worker_ca", self.worker_ca), ("proxy_cert", self.proxy_cert)):
            if path and not _FILE.fullmatch(path):
                raise OptionError(f"{name} is {path!r}; HAProxy needs an absolute path, such as /etc/haproxy/file.pem")
        if bool(self.worker_ca) != bool(self.proxy_cert):
            raise OptionError("worker_ca and proxy_cert belong together: set both, or none of them")
        if self.has_tls and not self.token_env and self.is_reached_by_others:
            raise OptionError(
                f"bind is {self.bind!r}, and the workers trust the proxy's certificate: every client that reaches "
                "HAProxy could start jobs. Set token_env, so that HAProxy checks a token, or bind to a loopback address"
            )

    def _check_workers(self) -> None:
        if not self.workers:
            raise OptionError("there is no worker. Name each one: --worker NAME=HOST:PORT")
        for what, values in (
            ("name", [worker.name for worker in self.workers]),
            ("address", [worker.address for worker in self.workers]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise OptionError(f"two workers have the {what} {twice[0]!r}; each needs its own")

    @property
    def is_reached_by_others(self) -> bool:
        """True if clients of other machines reach HAProxy."""
        return not is_loopback(self._host)

    @property
    def has_tls(self) -> bool:
        """True if HAProxy reaches the workers by TLS, with a certificate that they trust."""
        return bool(self.proxy_cert)

    @property
    def _host(self) -> str:
        return self.bind.rpartition(":")[0].strip("[]")


def read_worker(text: str) -> WorkerAddress:
    """Return the worker in ``NAME=HOST:PORT``."""
    name, _, address = text.partition("=")
    if not _NAME.fullmatch(name) or not _has_port(_ADDRESS.fullmatch(address)):
        message = "it must be NAME=HOST:PORT, where the name (worker_name) has 1 to 32 of a-z, 0-9 and -"
        raise OptionError(f"worker is {text!r}; {message}")
    return WorkerAddress(name, address)


def _has_port(address: re.Match[str] | None) -> bool:
    return address is not None and 0 < int(address["port"]) < 65536


def haproxy_files(plan: Plan, front: Haproxy) -> dict[str, str]:
    """Return the files, by name: the configuration, the answers of HAProxy itself, and the list of workers.

    Raises ``OptionError`` if clients of other machines could start jobs without a token.
    """
    _refuse_strangers(plan.server, front)
    count, pool, server = len(front.workers), plan.pool, plan.server
    launch = max(pool.launch_timeout, pool.start_timeout)
    start_seconds = math.ceil(server.offer_timeout + pool.request_timeout + launch + START_MARGIN)
    body = server.max_request_bytes
    names = [worker.name for worker in front.workers]
    values = {
        "commands": "\n".join(_command(plan, worker) for worker in front.workers),
        "token_check": _token_check(front),
        "max_request_bytes": body,
        "bufsize": math.ceil((body + HEADERS_BYTES) / PAGE_BYTES) * PAGE_BYTES,
        "connect_timeout": "2s" if front.has_tls else "500ms",
        "retries": 2 * count + 2,
        "lookup_retries": TRIES_FOR_EACH_OTHER * max(count - 1, 1),
        "workers": count,
        "names": " ".join(names),
        "bind": front.bind,
        "access": _access(front),
        "not_found": NOT_FOUND,
        "rerun": _rerun(front),
        "start_margin": f"{START_MARGIN:g}",
        "start_seconds": start_seconds,
        "starts": _servers(front),
        "starts_by_id": _servers(front, track="starts"),
        "lookups": _servers(front),
        "backends": "\n".join(_backend_of(front, worker) for worker in front.workers),
    }
    links = "\n".join(f'<li><a href="w/{name}/">{name}</a></li>' for name in names)
    return {
        CONFIG: fill("haproxy.cfg", values),
        **error_files(rerun_broken=front.rerun_broken),
        "workers.html": fill("workers.html", {"links": links}),
    }


def _refuse_strangers(server: ServerOptions, front: Haproxy) -> None:
    # A worker on a loopback address lets local clients in without a token. HAProxy is one, for all of its own clients.
    need_none = server.token in (None, KNOWN_CLIENTS) and server.token_file is None
    local = [worker.name for worker in front.workers if is_loopback(worker.host)]
    if front.is_reached_by_others and not front.has_tls and not front.token_env and need_none and local:
        raise OptionError(
            f"bind is {front.bind!r}, and the worker {local[0]} asks HAProxy on its own machine for no token: every "
            "client that reaches HAProxy could start jobs. Set token_env, so that HAProxy checks a token, or give the "
            "workers and this command a token, or bind to a loopback address"
        )


# --- parts of the configuration ------------------------------------------------------------------


def _command(plan: Plan, worker: WorkerAddress) -> str:
    """Return the command that starts a worker, as a comment."""
    port = worker.address.rpartition(":")[2]
    words = ["greenroom", "start", plan.app, "--worker-name", worker.name]
    words += ["--host", worker.host, "--port", port]
    return f"#   {shlex.join(words)}"


def server_options(front: Haproxy, worker: WorkerAddress) -> str:
    """Return what follows the address in the ``server`` line of a worker: how HAProxy reaches the worker by TLS.

    The worker has ``tls_cert`` and ``tls_key``, with its name as a DNS name in the certificate, and ``tls_client_ca``.
    """
    if not front.has_tls:
        return ""
    # Without verifyhost, a worker could pass itself off as another one: the same authority has signed all of them.
    return f" ssl verify required ca-file {front.worker_ca} crt {front.proxy_cert} verifyhost {worker.name}"


def _servers(front: Haproxy, *, track: str = "") -> str:
    """Return the ``server`` lines of a backend. Its workers have the state that they have in the backend ``track``."""
    return "\n".join(_server(front, worker, track) for worker in front.workers)


def _server(front: Haproxy, worker: WorkerAddress, track: str = "") -> str:
    tracked = f" track {track}/{worker.name}" if track else ""
    return f"    server {worker.name} {worker.address}{server_options(front, worker)}{tracked}"


def _backend_of(front: Haproxy, worker: WorkerAddress) -> str:
    return fill("haproxy-worker.cfg", {"name": worker.name, "server": _server(front, worker, "lookups")})


def _rerun(front: Haproxy) -> str:
    """Return the conditions of a further try that `--rerun-broken` adds."""
    return " empty-response response-timeout" if front.rerun_broken else ""


def _token_check(front: Haproxy) -> str:
    """Return the lines that refuse to start HAProxy without the token."""
    if not front.token_env:
        return ""
    return fill("haproxy-token-check.cfg", {"token_env": front.token_env})


def _access(front: Haproxy) -> str:
    """Return the lines that check the token of clients."""
    if not front.token_env:
        return fill("haproxy-open.cfg", {})
    values = {"token_env": front.token_env, "unauthorized": UNAUTHORIZED}
    access = fill("haproxy-token.cfg", values)
    return access + fill("haproxy-token-kept.cfg", {}) if front.has_tls else access
