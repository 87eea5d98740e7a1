"""Where a script hands over what is to be served. Integrations call it in the place of what would serve it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ...errors import AppLoadError, ErrorInfo
from ...wire import fds as fd_packets
from ...wire import messages as m
from ..scripts import Script

__all__ = ["Desk", "apply", "open_desk", "the_desk"]

LARGEST = 64 * 1024
"""Bytes of what is handed over: it travels in one packet, together with what a zygote is told besides."""


class Desk:
    """One script's way to the supervisor."""

    def __init__(self, channel: socket.socket, on_handed_over: Callable[[int | None], object]) -> None:
        self.script: Script
        self.before_block: Mapping[str, Any] = {}
        """The script's names, as they were when its main block began."""
        self.watchers: list[Callable[[Mapping[str, Any]], object]] = []
        """Called when the main block begins."""
        self.has_handed_over = False
        self._channel = channel
        self._on_handed_over = on_handed_over
        self._environment = dict(os.environ)

    def begin_block(self, namespace: Mapping[str, Any]) -> None:
        self.before_block = dict(namespace)
        for watcher in self.watchers:
            watcher(self.before_block)

    def hand_over(self, framework: str, make: Callable[[], tuple[dict[str, Any], int | None]]) -> None:
        """Hand over what is to be served, as plain data. Ends the process if that cannot be; raises
        :class:`AppLoadError` if something else is served already.

        With it comes the level of the root logger from then on, if the integration knows it.
        """
        try:
            served, level = make()
            self._hand_over({"framework": framework, "object": served})
        except AppLoadError as error:
            self.send(m.LoadFailed(ErrorInfo.of(error)))
            if self.has_handed_over:
                raise
            sys.exit(1)
        self.has_handed_over = True
        self._on_handed_over(level)

    def _hand_over(self, handed: dict[str, Any]) -> None:
        of_script = {"script": self.script.path, "block": self.script.fingerprint()}
        packet = m.encode(m.HandedOver({**handed, **of_script, **self._surroundings()}))
        if len(packet) > LARGEST:
            raise AppLoadError(
                f"{self.script.path} hands over {len(packet)} bytes (options, functions, and its changes of the "
                f"environment); at most {LARGEST} can be passed on. Load large objects in preload or prewarm functions"
            )
        fd_packets.send(self._channel, packet)

    def _surroundings(self) -> dict[str, Any]:
        """What the script's processes find as it is here: see :func:`apply`."""
        now = dict(os.environ)
        return {
            "argv": list(sys.argv),
            "path": list(sys.path),
            "folder": os.getcwd(),
            "set": {name: value for name, value in now.items() if self._environment.get(name) != value},
            "unset": [name for name in self._environment if name not in now],
        }

    def send(self, message: m.Message) -> None:
        with suppress(OSError):  # the supervisor has gone, and this process goes, too
            fd_packets.send(self._channel, m.encode(message))


def apply(handed: Mapping[str, Any]) -> None:
    """Bring about, in a process of the app, what the script had done in its own before it handed over."""
    for name in handed["unset"]:
        os.environ.pop(name, None)
    os.environ.update(handed["set"])
    sys.argv[:] = handed["argv"]
    sys.path[:] = handed["path"]
    os.chdir(handed["folder"])


_desk: Desk | None = None


def open_desk(channel: socket.socket, on_handed_over: Callable[[int | None], object]) -> Desk:
    global _desk
    _desk = Desk(channel, on_handed_over)
    return _desk


def the_desk() -> Desk:
    assert _desk is not None
    return _desk
