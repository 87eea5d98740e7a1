"""Notification socket of the service manager (sd_notify(3)), for datagrams of ``NAME=value`` lines.

The environment holds the socket's address and the watchdog's interval. This process takes both out of the
environment, since its children must not send messages for it.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

__all__ = ["Channel", "take"]

SEND_TIMEOUT = 0.5
"""Seconds to wait for room in the manager's queue."""


class Channel:
    """Channel to the service manager. Holds one fd from the start, so that it can send when no fds are left."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT)

    def send(self, *lines: str) -> None:
        """Send these lines to the service manager. Raises ``OSError``, also after :data:`SEND_TIMEOUT`."""
        # A line break in a text, such as the name of an app, would begin an assignment of its own.
        text = "\n".join(line.replace("\n", " ") for line in lines)
        # This sends to the address, since a connection would not survive a restart of the manager.
        self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._address)

    def close(self) -> None:
        self._socket.close()


class Taken(NamedTuple):
    """Settings of the service manager, from the environment."""

    channel: Channel | None
    """``None`` if no manager wants messages."""
    watchdog: float | None
    """Seconds of silence after which the manager assumes a hang; ``None`` if it has no watchdog."""


def take() -> Taken:
    """Take the manager's variables out of the environment, and return their content.

    Raises ``OSError`` if the address is neither a path nor abstract.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")
    usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not address:
        return Taken(None, None)
    if address[0] not in "/@":
        raise OSError(f"NOTIFY_SOCKET is {address!r}; it must be a path or an abstract address")
    is_watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
    return Taken(Channel(address), int(usec) / 1e6 if is_watched else None)
