"""Notifications for the service manager: the worker's phases, and a sign of life from its event loop."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ...log_fields import log_fields
from ...system import sd_notify

__all__ = ["Notifier"]

_logger = logging.getLogger("greenroom")


class Notifier:
    """Notifier of the service manager, between the entry and the exit of its context.

    Does nothing if there is no service manager.
    """

    def __init__(self) -> None:
        self._channel: sd_notify.Channel | None = None
        self._watchdog: float | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._has_complained = False

    def __enter__(self) -> Notifier:
        try:
            self._channel, self._watchdog = sd_notify.take()
        except OSError as error:
            extra = log_fields("service_manager_failed", cause=str(error))
            _logger.warning("the service manager is not notified of this worker: %s", error, extra=extra)
        if self._watchdog is not None:
            # The manager ends a hanging worker with SIGABRT. faulthandler then writes the stacks to stderr.
            faulthandler.enable()
            self._keep_alive(self._watchdog / 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def status(self, text: str) -> None:
        """Send one line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def ready(self, text: str) -> None:
        """Report that jobs can be started, also after a reload. Does nothing once the worker is stopping."""
        if not self._is_stopping:
            self._send("READY=1", f"STATUS={text}")

    @contextmanager
    def reloading(self, text: str) -> Iterator[None]:
        """Report a reload, and at its end that the worker is ready. The status is then ``text``.

        A reload that fails ends in the same report, because the old code goes on serving.
        """
        # The manager compares this time with the time of its own request (Type=notify-reload).
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")
        try:
            yield
        finally:
            self.ready(text)

    def stopping(self) -> None:
        self._is_stopping = True
        self._send("STOPPING=1", "STATUS=stopping")

    def _keep_alive(self, interval: float) -> None:
        """Send a sign of life every ``interval`` seconds. A blocked event loop sends none."""
        self._send("WATCHDOG=1")
        self._beat = asyncio.get_running_loop().call_later(interval, self._keep_alive, interval)

    def _send(self, *lines: str) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send(*lines)
        except OSError as error:
            if not self._has_complained:
                extra = log_fields("service_manager_failed", cause=str(error))
                _logger.warning("%s could not be sent to the service manager: %s", lines[0], error, extra=extra)
            self._has_complained = True
