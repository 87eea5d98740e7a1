"""Client of the process in which an app's script runs, in the supervisor.

The script is the main block of a file, which starts a worker as in ``python agent.py start``. The script runs in a
process of its own, before the first zygote; a reload may run the script again (``is_renewed``). Each zygote loads the
app from the data that the script hands over. Servers, threads and other things that the script has started live on in
the script's process.

This code runs in the supervisor. :mod:`greenroom.zygote.script` runs in the process of the script.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import AppLoadError, PoolClosed, fresh
from ...log_fields import log_fields
from ...system import open_files
from ...wire import fds as fd_packets
from ...wire import messages as m
from ...wire.frames import FrameError
from ..core.stalls import FULL_DUMP
from . import output
from .channels import ZygoteChannels
from .clock import Timer
from .dumps import DumpTaker
from .interpreters import ending_of, import_path, never_began, start_interpreter
from .tools import Tools
from .zygote_client import explained

__all__ = ["Invocation", "ScriptClient"]

_logger = logging.getLogger("greenroom")

CLOSE_TIMEOUT = 5.0
"""Seconds from SIGTERM to SIGKILL, for the ``finally`` blocks and exit handlers of a script."""

GIVE_UP_TIMEOUT = 15.0
"""Seconds from SIGKILL until the script's process is given up."""

# The process of a script never becomes a child, but its configuration has the same form as a zygote's.
_PLACE_HOLDER = m.ChildSettings(0.0, 0.0, 0.0)
_FROM_SCRIPT = m.Loading | m.HandedOver | m.NothingToRun | m.LoadFailed | m.StopWorker


@dataclass(frozen=True, slots=True)
class Invocation:
    """Way to run the main block of a script, as if by ``python agent.py start``."""

    arguments: tuple[str, ...] = ("start",)
    """Arguments in ``sys.argv`` after the name of the script."""
    is_renewed: bool = False
    """True if each reload runs the main block again. Otherwise the main block runs once."""
    on_stop: Callable[[], object] | None = None
    """Function that is called when the main block closes its server."""


class ScriptClient:
    """Script of an app, if the app's file has a main block that starts a worker.

    The order of the calls is :meth:`start`, :meth:`renew` at each reload, and :meth:`close` or :meth:`kill`.
    """

    def __init__(self, app: str, token: str, tools: Tools, preload_timeout: float, invocation: Invocation) -> None:
        self.handed: dict[str, Any] | None = None
        """Data that the script has handed over. ``None`` without a main block: then the zygote imports the app."""
        self.arguments = list(invocation.arguments)
        self._app = app
        self._token = token
        self._tools = tools
        self._preload_timeout = preload_timeout
        self._is_renewed = invocation.is_renewed
        self._on_stop = invocation.on_stop
        self._run: _Run | None = None
        self._is_closed = False

    @property
    def pids(self) -> set[int]:
        return set() if self._run is None else self._run.pids

    async def start(self) -> None:
        """Run the script, and wait until it hands over its data.

        Raises :class:`AppLoadError`; then the process of the script is gone. Raises :class:`PoolClosed` after
        :meth:`close`, which may be called during :meth:`renew`.
        """
        if self._is_closed:
            raise PoolClosed("the pool is closed: it can no longer run a script")
        if not _may_have_main_block(self._app):
            self.handed = None
            return
        run = self._run = _Run(self._app, self._tools, self._preload_timeout, self._on_stop)
        try:
            self.handed = await run.outcome(self._configuration())
        except BaseException:
            await asyncio.shield(run.close())
            raise

    @property
    def complaint(self) -> AppLoadError | None:
        """Error that the script has reported after the handover of its data, or ``None``."""
        return None if self._run is None else self._run.complaint

    async def renew(self) -> None:
        """End the script at a reload and run the script again, if its invocation says so.

        Raises :class:`AppLoadError`. Then the old process is gone, too, but the data from its handover stay.
        """
        if self._is_renewed:
            await self._end()
            try:
                await self.start()
            except AppLoadError:
                self._warn_of_loss()
                raise

    def _warn_of_loss(self) -> None:
        if self.handed is not None and not self._is_closed:
            text = "the main block of %s was ended, with all that it had started, for a reload that failed"
            _logger.warning(text, self._app, extra=log_fields("script_not_renewed"))

    async def close(self) -> None:
        """End the script for good, by SIGTERM first, and wait for its end."""
        self._is_closed = True
        await self._end()

    async def _end(self) -> None:
        if self._run is not None:
            await self._run.close()

    def kill(self) -> None:
        """Kill the script at once, and for good."""
        self._is_closed = True
        if self._run is not None:
            self._run.is_closing = True
            self._run.kill()

    def _configuration(self) -> m.Configure:
        return m.Configure(
            app=self._app,
            arguments=self.arguments,
            handed=None,
            sys_path=import_path(),
            generation=0,
            pool_token=self._token,
            open_files=open_files.original_soft_limit(),
            child=_PLACE_HOLDER,
            fixed=[],
            allow_threads=[],
            preload_timeout=self._preload_timeout,
        )


class _Run:
    """Process of the script, from its start to its end."""

    def __init__(self, app: str, tools: Tools, preload_timeout: float, on_stop: Callable[[], object] | None) -> None:
        self._app = app
        self._tools = tools
        self._preload_timeout = preload_timeout
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[dict[str, Any] | AppLoadError | None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._ended.set()
        self._pid = 0
        self._pidfd = -1
        self.is_closing = False
        self.complaint: AppLoadError | None = None
        self._dump_fd: int | None = None
        self._dump: DumpTaker | None = None
        self._is_overdue = False
        self._timers: list[Timer] = []

    @property
    def pids(self) -> set[int]:
        return {self._pid} if self._pidfd != -1 else set()

    async def outcome(self, configuration: m.Configure) -> dict[str, Any] | None:
        """Start the process, and return the data of its handover; ``None`` if there is no main block to run.

        Raises :class:`AppLoadError`.
        """
        try:
            self._start(configuration)
        except OSError as error:
            raise AppLoadError(f"the process of the script could not be started: {error}") from error
        self._begin()
        outcome = await asyncio.shield(self._outcome)
        self._stop_timers()
        if isinstance(outcome, AppLoadError):
            raise fresh(outcome)
        if outcome is None:
            await self._ended.wait()
        else:
            extra = log_fields("script_handed_over", **self._ids)
            _logger.info("process %d runs the main block of %s", self._pid, self._app, extra=extra)
        return outcome

    def _begin(self) -> None:
        """Start the deadline, or restart it at the first message. So the script has its full time after the start."""
        self._stop_timers()
        timeout = self._preload_timeout
        self._timers.append(self._tools.clock.call_later(timeout, self._overdue, timeout))

    def _stop_timers(self) -> None:
        while self._timers:
            self._timers.pop().cancel()

    def _start(self, configuration: m.Configure) -> None:
        ends = self._ends = ZygoteChannels()
        self._popen, self._pidfd = start_interpreter("greenroom.zygote.script", ends, configuration.pool_token)
        self._pid = self._popen.pid
        self._ended.clear()
        self._channel = socket.socket(fileno=ends.channel)
        self._channel.setblocking(False)  # also where the program has set a default timeout
        self._loop.add_reader(self._pidfd, self._on_death)
        self._loop.add_reader(self._channel, self._on_readable)
        outlet = self._outlet = output.Outlet(self._emit, self._tools.log_budget)
        self._captures = [
            output.StreamCapture(ends.stdout, "stdout", outlet),
            output.StreamCapture(ends.stderr, "stderr", outlet),
            output.LogCapture(ends.log, outlet, self._on_nonsense),
        ]
        fd_packets.send(self._channel, m.encode(configuration))

    # --- messages --------------------------------------------------------------------------------

    def _on_readable(self) -> bool:
        """Read one packet. Return false if no packet is there to read."""
        try:
            received = fd_packets.receive(self._channel, 0)
            if received is not None:
                self._handle(m.decode(received[0], _FROM_SCRIPT))
                return True
        except BlockingIOError:
            return False
        except OSError as error:
            extra = log_fields("script_channel_broke", **self._ids, cause=str(error))
            _logger.debug("the channel of the script broke: %s; its pidfd will report its end", error, extra=extra)
        except (FrameError, fd_packets.FdsLost) as error:
            self._on_nonsense(str(error))
        self._loop.remove_reader(self._channel)
        return False

    def _on_nonsense(self, complaint: str) -> None:
        self._settle(AppLoadError(f"the process of {self._app} broke the protocol: {complaint}"))
        self.kill()

    def _handle(self, message: m.Message) -> None:
        if isinstance(message, m.Loading):
            is_first, self._dump_fd = self._dump_fd is None, message.dump_fd
            if is_first and self._awaits_outcome:
                self._begin()
        elif isinstance(message, m.HandedOver):
            self._settle(message.handed)
        elif isinstance(message, m.NothingToRun):
            self._settle(None)
        elif isinstance(message, m.LoadFailed):
            self._complain(AppLoadError(f"the app did not load: {explained(message.error)}"))
        elif self._on_stop is not None and not self.is_closing:
            self._on_stop()

    def _complain(self, error: AppLoadError) -> None:
        """Note an error of the script, such as a second server, also after the first server is served."""
        is_news = self.complaint is None or str(self.complaint) != str(error)  # a script may repeat an error for ever
        if self._outcome.done() and is_news:
            self.complaint = error
            _logger.error("%s", error, extra=log_fields("script_complained", **self._ids))
        self._settle(error)

    def _settle(self, outcome: dict[str, Any] | AppLoadError | None) -> None:
        if self._awaits_outcome:
            self._outcome.set_result(outcome)

    @property
    def _awaits_outcome(self) -> bool:
        return not self._outcome.done() and not self._is_overdue

    def _overdue(self, timeout: float) -> None:
        if self._outcome.done():  # the outcome has come in this very turn of the event loop
            return
        # Messages from now on do not count: the signal for the dump may have interrupted a wait of the script.
        self._is_overdue = True
        on_end = partial(self._have_stacks, timeout)
        if self._dump_fd is not None:
            with suppress(OSError):  # the process is dead, or may not be read any more
                self._dump = DumpTaker(self._pid, self._dump_fd, FULL_DUMP, self._tools.clock, on_end)
                return
        self._have_stacks(timeout, "")

    def _have_stacks(self, timeout: float, stacks: str) -> None:
        where = f"its stack was:\n{stacks}" if stacks else "its stack is unknown"
        self._is_overdue = False
        self._settle(
            AppLoadError(
                f"the main block of {self._app} did not call cli.run_app within preload_timeout ({timeout:g} s). If it "
                f"does not start a worker, name the server, for example {self._app}:server; {where}"
            )
        )
        self.kill()

    # --- the end of the process ------------------------------------------------------------------

    async def close(self) -> None:
        self.is_closing = True
        if self._pidfd != -1:
            self._signal(signal.SIGTERM)
            self._timers.append(self._tools.clock.call_later(CLOSE_TIMEOUT, self.kill))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT + GIVE_UP_TIMEOUT):
                await self._ended.wait()
        except TimeoutError:
            extra = log_fields("unkillable", **self._ids)
            text = "process %d of the main block cannot be killed; the pool no longer waits for it"
            _logger.error(text, self._pid, extra=extra)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        if self._pidfd != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def _on_death(self) -> None:
        self._loop.remove_reader(self._pidfd)
        ending = ending_of(self._popen)
        while self._on_readable():  # messages of the process from before its death still count
            continue
        self._stop_timers()
        if self._dump is not None:
            self._dump.finish()
            self._dump = None
        for capture in self._captures:
            capture.finish()
        self._captures.clear()
        self._outlet.finish()
        self._loop.remove_reader(self._channel)
        self._channel.detach()
        os.close(self._pidfd)
        self._pidfd = -1
        self._ends.close()
        self._report_end(ending)
        self._tools.orphans.sweep(lambda _: None)  # kill the processes that the script had started
        self._ended.set()

    def _report_end(self, how: str) -> None:
        if not self._outcome.done() and self._dump_fd is None:
            self._settle(AppLoadError(never_began("the interpreter", how)))
        elif not self._outcome.done():
            self._settle(
                AppLoadError(
                    f"{self._app} ended ({how}) before it called cli.run_app. Its output is in the lines above. If its "
                    f"main block does not start a worker, name the server, for example {self._app}:server"
                )
            )
        elif not self.is_closing and isinstance(self._outcome.result(), dict):
            extra = log_fields("script_ended", **self._ids, cause=how)
            text = "the main block of %s has ended (%s), with all that it had started; jobs are served as before"
            _logger.error(text, self._app, how, extra=extra)

    def _emit(self, line: output.OutputLine | output.Loss) -> None:
        output.emit(line, self._ids)

    @property
    def _ids(self) -> dict[str, object]:
        """Fields of log lines about this process."""
        return {"process_id": "script", "job_pid": self._pid, "job_id": None, "generation": None}


def _may_have_main_block(app: str) -> bool:
    """Return true if ``app`` names no attribute, and its source text has ``__main__``. Imports nothing."""
    if ":" in app:
        return False
    is_file = app.endswith(".py") or os.sep in app
    path = app if is_file else _source_of(app)
    try:
        with open(path or "", "rb") as file:
            return b"__main__" in file.read() or os.path.basename(path or "") == "__main__.py"
    except OSError:
        return False


def _source_of(module: str) -> str | None:
    """Return the file of a module, or of the ``__main__`` module of a package. Return ``None`` if no file is found."""
    places: Sequence[str] | None = None
    for part in (parts := module.split(".")):
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
        if places is None:
            return spec.origin if part is parts[-1] else None
    return next((path for folder in places or () if os.path.isfile(path := os.path.join(folder, "__main__.py"))), None)
