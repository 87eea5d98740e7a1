"""The service manager's notification socket, as in sd_notify(3): a datagram of ``NAME=value`` lines.

Its address and the watchdog's interval come in the environment, and are taken out of it: what this process
starts must not speak for it.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

__all__ = ["Channel", "take"]

SEND_TIMEOUT = 0.5
"""Seconds to wait for room in the manager's queue."""


class Channel:
    """A way to the service manager. Holds one fd, so that it still speaks when none are left."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT)

    def send(self, *lines: str) -> None:
        """Tell it. Raises ``OSError``, a timeout included."""
        # A line break in a text, such as the name of an app, must not begin an assignment of its own.
        text = "\n".join(line.replace("\n", " ") for line in lines)
        # By address each time: after the manager was started anew, a connection would lead nowhere.
        self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._address)

    def close(self) -> None:
        self._socket.close()


class Taken(NamedTuple):
    """What the environment said."""

    channel: Channel | None
    """``None``: no manager wants to be told."""
    watchdog: float | None
    """Seconds after which the manager takes silence for a hang, if it does."""


def take() -> Taken:
    """Take what the environment says out of it. Raises ``OSError`` for a kind of socket that is not known here."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not address:
        return Taken(None, None)
    if address[0] not in "/@":
        raise OSError(f"NOTIFY_SOCKET is {address!r}; only a path or an abstract address is known")
    is_watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
    return Taken(Channel(address), int(usec) / 1e6 if is_watched else None)
