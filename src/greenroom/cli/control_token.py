"""Token of a worker on this machine, which the worker gives to commands of its own user by its control socket."""

from __future__ import annotations

import json
import os
import socket
import struct
from urllib.parse import urlsplit

from ..settings.worker_options import is_loopback
from ..system.control_address import HELLO, control_address

__all__ = ["token_of_worker"]

_PATIENCE = 5.0
"""Seconds for an answer. A worker that stands still gives none."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def token_of_worker(url: str) -> str | None:
    """Return the token of the worker at this address; ``None`` if it is on another machine, or gives no token."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return None
    try:
        answer = _ask(parts.port or _DEFAULT_PORTS[parts.scheme])
    except (OSError, ValueError):
        return None  # there is no such worker, or it does not answer: the request that follows tells
    token = answer.get("token")
    return token if isinstance(token, str) else None


def _ask(port: int) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(control_address(port))
        # Any user can listen at an abstract address: one that is not the own user or root gets no greeting.
        _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        if user not in (0, os.geteuid()):
            return {}
        sock.send(HELLO)
        sock.send(sock.recv(256))  # the worker's nonce
        answer = json.loads(sock.recv(65536))
        return answer if isinstance(answer, dict) else {}
