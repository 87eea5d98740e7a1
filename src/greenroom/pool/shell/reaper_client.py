"""Client of the pool's reaper process, in the supervisor: its start, its restarts, and its end with the pool."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ...backoff import backoff
from ...log_fields import log_fields
from ...system import mark
from .channels import ReaperChannel
from .interpreters import ending_of, pidfd_of

__all__ = ["ReaperClient"]

_logger = logging.getLogger("greenroom")

_PACKAGE = Path(__file__).parent.parent.parent

# The package without the imports of its ``__init__``: the reaper lives as long as the pool, and must be small.
_PROGRAM = (
    "import sys, types; package = types.ModuleType('greenroom'); package.__path__ = [sys.argv.pop(1)]; "
    "sys.modules['greenroom'] = package; from greenroom.zygote.reaper import main; main()"
)

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 60.0
_END_TIMEOUT = 5.0
"""Seconds from SIGKILL until a reaper that does not die is left alone. Such a reaper ends when this process ends."""


class ReaperClient:
    """Keeper of one running reaper process (:mod:`greenroom.zygote.reaper`), from :meth:`start` to :meth:`end`."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._channel: ReaperChannel | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_gone = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Pid of the reaper process, or ``None`` while there is none."""
        return None if self._popen is None else self._popen.pid

    def start(self) -> None:
        """Start the reaper process. A start that fails is repeated later, and the pool serves meanwhile."""
        self._timer = None
        try:
            if self._channel is None:
                self._channel = ReaperChannel()
            self._spawn(self._channel.far)
        except (OSError, TypeError) as error:  # TypeError: sys.executable is None
            text = "the pool's reaper could not be started (%s); the next try is in %g s"
            delay = self._start_later()
            _logger.warning(text, error, delay, extra=log_fields("reaper_failed"))

    def _spawn(self, fd: int) -> None:
        # -I: do not import from the app's folder. -S: do not run start-up code of site-packages.
        flags = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
        self._popen = subprocess.Popen(
            [sys.executable, *flags, "-c", _PROGRAM, str(_PACKAGE), str(fd)],
            env={**os.environ, mark.REAPED_VARIABLE: self._token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd,),
            start_new_session=True,
        )
        try:
            self._pidfd = pidfd_of(self._popen)
        except OSError:
            self._popen = None
            raise
        self._is_gone.clear()
        self._loop.add_reader(self._pidfd, self._on_death)

    def _on_death(self) -> None:
        assert self._popen is not None
        pid, ending = self._popen.pid, ending_of(self._popen)
        self._let_go()
        text = "the pool's reaper %d was lost (%s); another one is started in %g s"
        delay = self._start_later()
        _logger.warning(text, pid, ending, delay, extra=log_fields("reaper_lost", pid=pid))

    def _start_later(self) -> float:
        """Schedule another start, after a delay that grows with each failure. Return the delay in seconds."""
        self._failures += 1
        delay = backoff(self._failures, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        self._timer = self._loop.call_later(delay, self.start)
        return delay

    def _let_go(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd, self._popen = -1, None
        self._is_gone.set()

    async def end(self) -> None:
        """Kill the reaper process: the pool has no process left that the reaper must end."""
        if self._timer is not None:
            self._timer.cancel()
        if self._popen is not None:
            self._loop.remove_reader(self._pidfd)
            self._loop.add_reader(self._pidfd, self._on_end)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_TIMEOUT):
                    await self._is_gone.wait()
        if self._channel is not None:
            self._channel.close()

    def _on_end(self) -> None:
        assert self._popen is not None
        ending_of(self._popen)
        self._let_go()
