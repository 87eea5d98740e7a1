"""Handover: the object through which a script hands over its app to the supervisor.

Integrations call it in the place of the framework's function that would serve the app.
"""

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
from .script_file import Script

__all__ = ["ScriptHandover", "apply", "current_handover", "open_handover"]

LARGEST = 64 * 1024
"""Largest size of the handed-over data, in bytes. The data travels to a zygote in one packet, with other settings."""


class ScriptHandover:
    """Connection of one script to the supervisor."""

    def __init__(self, channel: socket.socket, on_handed_over: Callable[[int | None], object]) -> None:
        self.script: Script
        self.before_block: Mapping[str, Any] = {}
        """Global names of the script and their values, as they were when its main block began."""
        self.watchers: list[Callable[[Mapping[str, Any]], object]] = []
        """Functions that are called with these names when the main block begins."""
        self.has_handed_over = False
        self._channel = channel
        self._on_handed_over = on_handed_over
        self._environment = dict(os.environ)

    def begin_block(self, namespace: Mapping[str, Any]) -> None:
        self.before_block = dict(namespace)
        for watcher in self.watchers:
            watcher(self.before_block)

    def hand_over(self, framework: str, make: Callable[[], tuple[dict[str, Any], int | None]]) -> None:
        """Hand over the app to serve, as plain data.

        ``make`` returns the data, and the new level of the root logger. The level is ``None`` if the integration does
        not know it. A failure is sent to the supervisor, and ends the process with exit code 1. If this script has
        handed over an app before, the failure raises :class:`AppLoadError` instead.
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
        """Return the state that the app's processes take over from this one: see :func:`apply`."""
        now = dict(os.environ)
        return {
            "argv": list(sys.argv),
            "path": list(sys.path),
            "folder": os.getcwd(),
            "set": {name: value for name, value in now.items() if self._environment.get(name) != value},
            "unset": [name for name in self._environment if name not in now],
        }

    def send(self, message: m.Message) -> None:
        with suppress(OSError):  # the supervisor is gone, and the lifeline ends this process
            fd_packets.send(self._channel, m.encode(message))


def apply(handed: Mapping[str, Any]) -> None:
    """Give this process the environment, arguments, ``sys.path`` and folder that the script had at its handover."""
    for name in handed["unset"]:
        os.environ.pop(name, None)
    os.environ.update(handed["set"])
    sys.argv[:] = handed["argv"]
    sys.path[:] = handed["path"]
    os.chdir(handed["folder"])


_handover: ScriptHandover | None = None


def open_handover(channel: socket.socket, on_handed_over: Callable[[int | None], object]) -> ScriptHandover:
    global _handover
    _handover = ScriptHandover(channel, on_handed_over)
    return _handover


def current_handover() -> ScriptHandover:
    assert _handover is not None
    return _handover
