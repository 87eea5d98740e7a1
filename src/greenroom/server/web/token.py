"""Token that holds now: the one that was set, a random one, or the one in a file, which may change."""

from __future__ import annotations

import logging
import secrets
import threading

from ...errors import OptionError
from ...log_fields import log_fields
from ...settings import ServerOptions
from ...settings.token import Stamp, read_token, stamp_of
from ...settings.worker_options import RANDOM_TOKENS

__all__ = ["Token"]

_LOOK_EVERY = 1.0
"""Seconds between two looks at the file."""

_logger = logging.getLogger("greenroom")


class Token:
    """Token that clients must send. From :meth:`start` on, a file that changes is read again.

    The constructor raises ``OptionError`` if the file holds no token.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._path = options.token_file
        self._stamp: Stamp | None = None
        self._problem: str | None = None
        self._closing = threading.Event()
        self.is_random = options.token in RANDOM_TOKENS and self._path is None
        """True if the worker has made the token. It is in memory only: in no file, log, argument or environment."""
        token = secrets.token_hex(32) if self.is_random else options.token
        if self._path is not None:
            token, self._stamp = read_token(self._path)
        self._current = None if token is None else token.encode()

    @property
    def current(self) -> bytes | None:
        """Token as bytes; ``None`` if clients need none."""
        return self._current

    def start(self) -> None:
        """Follow the file, if there is one."""
        if self._path is not None:
            # A daemon thread: a file system that hangs then delays neither the event loop nor the end of the worker.
            threading.Thread(target=self._follow, name="greenroom-token", daemon=True).start()

    def close(self) -> None:
        """Let the thread end, without waiting for it. The file system may block the thread."""
        self._closing.set()

    def _follow(self) -> None:
        while not self._closing.wait(_LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        assert self._path is not None  # the thread runs only with a file
        stamp = stamp_of(self._path)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            token, self._stamp = read_token(self._path)
        except OptionError as error:
            self._stamp = None  # read again: the cause (no free fd, say) may pass without a change of the file
            self._complain(str(error))
        else:
            self._take(token.encode())

    def _take(self, token: bytes) -> None:
        self._problem = None
        if token != self._current:
            self._current = token
            extra = log_fields("token_changed")
            _logger.info("the token file %s has changed: the new token is in force", self._path, extra=extra)

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            text = "%s. The worker goes on with the token before. Correct the file"
            _logger.error(text, problem, extra=log_fields("token_unreadable"))
