"""Landlock domain that keeps a thread, and all that it will start, from abstract UNIX sockets outside (unix(7)).

An abstract socket has no permissions: any process can connect to it. A process in the domain can connect only to those
that were made in the domain. Sockets with a path, and pairs of sockets, are not affected.
"""

from __future__ import annotations

import os
import secrets
import socket

from . import landlock, prctl

__all__ = ["connect", "enter", "outside_socket"]


def enter() -> None:
    """Enter a new domain. Raises ``OSError``, such as ``ScopesMissing``.

    Sets no_new_privs, which stays if the kernel then refuses the domain.
    """
    ruleset = landlock.scoped_ruleset(landlock.SCOPE_ABSTRACT_SOCKETS)
    try:
        prctl.set_no_new_privileges()
        landlock.enter(ruleset)
    finally:
        os.close(ruleset)


def outside_socket() -> tuple[socket.socket, str]:
    """Return a socket and its name, with which a process in a domain tries its wall. Raises ``OSError``.

    The socket is for datagrams. A stream socket has a queue, which strangers could fill, and the kernel looks at the
    queue before it asks Landlock. This one receives nothing.
    """
    name = f"greenroom/outside/{secrets.token_hex(8)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(f"\0{name}")
        sock.shutdown(socket.SHUT_RD)
    except BaseException:
        sock.close()
        raise
    return sock, name


def connect(name: str) -> None:
    """Connect to a socket of :func:`outside_socket`, for a moment. Raises ``PermissionError`` where a wall stands."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(f"\0{name}")
