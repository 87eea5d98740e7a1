"""Worker: the process that runs a pool, its HTTP API and other sources, from the start to the last exit report.

This code runs in the supervisor, the process of ``greenroom start``. The phases of :meth:`Worker.run` are:

1. Listen on the port of the API. All jobs are rejected (``warming``).
2. Load the app and warm up, apply the app's settings, and open the sources. Now jobs are accepted.
3. Steer: reload on request, until a signal or a request stops the worker.
4. Drain: reject new jobs (``draining``), and wait for the accepted jobs.
5. Close the pool, the sources and the API.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yarl import URL

from ..code_place import place_fields, place_in_traceback
from ..command_exit_codes import ExitCode
from ..errors import AppLoadError, GreenroomError, OptionError, WallMissing
from ..log_fields import log_fields
from ..pool import Invocation
from ..settings import Settings
from ..settings.environment import URL_VARIABLE
from ..settings.fields import all_settings
from ..settings.layers import Resolved
from ..settings.open_files import Limits
from ..sources import Closed, Source
from ..system import wakeup
from .control_socket import ControlSocket
from .effective_settings import SettingsInForce
from .machine.limits import apply_limits
from .machine.systemd import Notifier
from .machine.zombie_reaper import OrphanReaper
from .reload import Reloader, watch
from .slow_callbacks import slow_callbacks
from .telemetry.job_metrics import VARIABLE as PROMETHEUS_DIR
from .web import listen
from .web.probe_port import Probes
from .worker_assembly import assemble

__all__ = ["Worker"]

_logger = logging.getLogger("greenroom")

_LOADING = Closed("warming", "the app is still being loaded", retry_after=1.0)
_STOPPING = Closed("draining", "the worker is stopping", retry_after=5.0)


class Worker:
    """Worker that serves an app until a signal or a request ends the worker.

    SIGTERM or SIGINT starts a drain. Accepted jobs then go on for up to ``drain_timeout`` seconds, and new jobs are
    rejected. A second SIGTERM or SIGINT ends all jobs at once.

    SIGHUP reloads the app. A changed source file in the folder ``watched`` reloads the app, too. ``arguments`` are the
    arguments of the app's script. ``more_sources`` are sources of jobs besides HTTP and LiveKit.
    """

    def __init__(
        self,
        app: str,
        resolved: Resolved,
        *,
        watched: Path | None = None,
        is_dev: bool = False,
        arguments: Iterable[str] = (),
        more_sources: Iterable[Source] = (),
    ) -> None:
        self._app = app
        self._settings = settings = resolved.settings
        self._watched = watched
        self._is_dev = is_dev
        words = ("dev" if is_dev else "start", *arguments)
        invocation = Invocation(words, is_renewed=is_dev, on_stop=self._stop_by_script)
        self._parts = parts = assemble(app, resolved, invocation, is_dev=is_dev, more_sources=more_sources)
        self._pool, self._admission, self._sources = parts.pool, parts.admission, parts.sources
        self._drain_timeout = settings.server.drain_timeout
        self._in_force = SettingsInForce(resolved, parts.pool, self._apply_late)
        self._probes = Probes(parts.probe_server)
        self._systemd = Notifier()
        self._reloader = Reloader(self._pool, lambda: self._systemd.reloading(f"serving {app}"))
        self._stopping = asyncio.Event()
        self._ending = asyncio.Event()
        self._exit_code: int = ExitCode.OK

    async def run(self) -> int:
        """Serve until the worker ends, and return the exit code. At the return, no process of the pool is left."""
        options = self._settings.server
        limits = apply_limits(self._settings.pool, options)
        try:
            sock = listen(options.host, options.port)
        except OSError as error:
            extra = log_fields("start_failed", cause=error.strerror)
            text = "cannot listen on %s, port %d: %s"
            _logger.error(text, options.host, options.port, error.strerror, extra=extra)
            return ExitCode.LISTEN
        try:
            # Only after listen(): if another worker has this port, that worker may use the folder, too.
            self._parts.job_metrics.start()
        except OSError as error:
            sock.close()
            extra = log_fields("start_failed", cause=str(error))
            _logger.error("cannot use %s for the metrics of jobs: %s", PROMETHEUS_DIR, error, extra=extra)
            return ExitCode.USAGE
        slow = slow_callbacks(self._settings.log.slow_callback_ms)
        traces = self._parts.traces.in_log()
        with self._signals(), self._systemd, slow, traces, OrphanReaper(self._pool.owns).watching():
            async with self._parts.history.following():
                self._send_lost_spans()
                await self._serve(sock, limits)
        return self._exit_code

    async def _serve(self, sock: socket.socket, limits: Limits) -> None:
        self._admission.closed = _LOADING
        options = self._settings.server
        server = self._parts.server(sock, options, limits.connections, self._reloader, self._drain_by_request)
        await server.start()
        control = ControlSocket(server.url.port or 0, lambda: self._parts.keys.token.current)
        control.start()
        self._let_sessions_in(server.url)
        try:
            if await self._load():
                if await self._apply_app(server.url.port) and await self._open_sources():
                    self._announce(str(server.url))
                    await self._steer()
                await self._drain()
        finally:
            self._parts.stalls.stop()
            if not self._ending.is_set():
                await _unless(self._ending, self._pool.aclose())
            await self._pool.aclose(kill=True)  # kills only after a second signal: otherwise no process is left here
            await self._parts.registry.settled()
            await self._sources.close()
            if not self._ending.is_set():
                await _unless(self._ending, self._parts.scrapes.one_more())
            self._parts.end_streams()
            await self._parts.job_metrics.close()
            await self._probes.close()
            await control.close()
            await server.close()
            if self._parts.spans is not None:
                await self._parts.spans.close()
        _logger.info("ended", extra=log_fields("ended"))

    def _let_sessions_in(self, url: URL) -> None:
        """Give sessions the address and their token, by the environment that the pool's processes inherit."""
        token = self._parts.keys.session_token
        if token is not None:
            host = "127.0.0.1" if url.host in ("0.0.0.0", None) else "::1" if url.host == "::" else url.host
            os.environ[URL_VARIABLE] = str(url.with_host(host))
            os.environ[all_settings()["token"].variable] = token

    def _send_lost_spans(self) -> None:
        if self._parts.spans is not None and self._parts.history.store is not None:
            self._parts.spans.send_lost(self._parts.history.store)

    # --- phases ----------------------------------------------------------------------------------

    async def _load(self) -> bool:
        """Load the app and warm up. Return false if the load has failed, or if the worker stops meanwhile."""
        _logger.info("loading %s", self._app, extra=log_fields("loading", app=self._app))
        self._systemd.status(f"loading {self._app}")
        try:
            is_loaded = await _unless(self._stopping, self._pool.start())
        except AppLoadError as error:
            place = place_fields(place_in_traceback(str(error)))
            _logger.error("%s", error, extra=log_fields("start_failed", cause=str(error), **place))
            self._exit_code = ExitCode.USAGE if isinstance(error, WallMissing) else ExitCode.APP
            return False
        return is_loaded

    async def _apply_app(self, api_port: int | None) -> bool:
        """Apply the app's settings, and open the probe port.

        Return false if the settings are invalid, if the port cannot be opened, or if the worker stops meanwhile.
        """
        try:
            self._settings = settings = self._in_force.apply()
            self._drain_timeout = settings.server.drain_timeout
            is_open = await _unless(self._stopping, self._probes.open(settings.server, api_port))
        except OptionError as error:
            _logger.error("%s", error, extra=log_fields("start_failed", cause=str(error)))
            self._exit_code = ExitCode.USAGE
        except OSError as error:
            _logger.error("%s", error.strerror, extra=log_fields("start_failed", cause=error.strerror))
            self._exit_code = ExitCode.LISTEN
        else:
            return is_open
        self._begin_to_stop("the app's settings cannot be applied")
        return False

    def _apply_late(self, settings: Settings, is_first: bool) -> None:
        """Apply settings that the app has reported late (``is_first``), or that a reload has brought."""
        self._settings = settings
        if self._stopping.is_set():
            return
        self._drain_timeout = settings.server.drain_timeout
        if is_first:
            self._probes.move(settings.server)
        else:
            self._probes.compare(settings.server)

    async def _open_sources(self) -> bool:
        """Open the sources. Return false if one source fails, or if the worker stops meanwhile.

        Even then, the sources that are open already may have brought jobs, which the drain waits for.
        """
        if not self._stopping.is_set():
            self._admission.closed = None  # only now: clients send jobs as soon as the worker is ready
        try:
            is_open = await _unless(self._stopping, self._sources.open())
            self._parts.stalls.start()  # a source may import its protocol when it opens, which takes the loop's time
            return is_open
        except (GreenroomError, TimeoutError) as error:
            _logger.error("%s", error, extra=log_fields("start_failed", cause=str(error)))
            self._exit_code = ExitCode.NEGATIVE if isinstance(error, TimeoutError) else ExitCode.USAGE
        self._begin_to_stop("a source of sessions did not open")
        return False

    def _announce(self, url: str) -> None:
        stats = self._pool.stats()
        self._systemd.ready(f"serving {self._app} on {url}")
        extra = log_fields("serving", app=self._app, url=url, idle=stats.idle, generation=stats.generation)
        _logger.info("serving %s on %s, with %d idle processes", self._app, url, stats.idle, extra=extra)
        if stats.breaker_cause:
            extra = log_fields("not_warm", cause=stats.breaker_cause)
            _logger.warning("processes do not become warm yet: %s", stats.breaker_cause, extra=extra)
        needs_token = self._parts.keys.token.current is not None and not self._parts.keys.open_to_some
        # Not in curl's arguments, which a session can read.
        piped, taken = ('echo "Authorization: Bearer $(greenroom token)" | ', " -H @-") if needs_token else ("", "")
        text = "to start a session: %scurl %s/v1/jobs -H 'Content-Type: application/json'%s -d '{\"metadata\": {}}'"
        _logger.info(text, piped, url, taken, extra=log_fields("hint"))
        if self._is_dev and needs_token and sys.stderr.isatty():
            # Not a log line: whoever reads a log could use the code.
            print(f"the page, for 60 s: {url.rstrip('/')}/#code={self._parts.page_codes.new()}", file=sys.stderr)

    async def _steer(self) -> None:
        """Reload on request, and sample the CPU time of jobs, until the worker stops."""
        watching = watch(self._watched, self._reloader, self._stopping) if self._watched else _nothing()
        sampling = _unless(self._stopping, self._parts.cpu.run())
        await asyncio.gather(_unless(self._stopping, self._reloader.run()), sampling, watching)

    async def _drain(self) -> None:
        timeout, jobs = self._drain_timeout, self._pool.stats().jobs
        extra = log_fields("draining", jobs=jobs, timeout=timeout)
        text = "draining: %d jobs may go on for %g s; a second signal ends them at once"
        _logger.info(text, jobs, timeout, extra=extra)
        self._systemd.status(f"draining: {jobs} jobs may go on for {timeout:g} s")
        if not await _unless(self._ending, self._pool.drain(timeout)):
            jobs = self._pool.stats().jobs
            _logger.warning("ending %d jobs without waiting for them", jobs, extra=log_fields("ending", jobs=jobs))

    # --- signals ---------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        wakeup.harden_loop(loop)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop, signum)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(signum)

    def _stop(self, signum: signal.Signals) -> None:
        self._pool.had_signal()
        if self._stopping.is_set():
            self._exit_code = ExitCode.SIGNALLED + signum
            self._ending.set()
            return
        self._begin_to_stop(signum.name)

    def _drain_by_request(self, timeout: float | None) -> float:
        """Start a drain, as SIGTERM does. Return the seconds that accepted jobs have to end.

        A further request changes nothing.
        """
        if not self._stopping.is_set():
            self._drain_timeout = timeout or self._drain_timeout
            self._begin_to_stop("a drain was requested by HTTP")
        return self._drain_timeout

    def _stop_by_script(self) -> None:
        if not self._stopping.is_set():
            self._begin_to_stop("the main block closed its server")

    def _begin_to_stop(self, cause: str) -> None:
        _logger.info("%s: stopping", cause, extra=log_fields("stopping", cause=cause))
        # Reject jobs from this moment on: the drain may begin later.
        self._admission.closed = _STOPPING
        self._sources.pause()
        self._systemd.stopping()
        self._stopping.set()

    def _hang_up(self) -> None:
        self._pool.had_signal()
        if self._stopping.is_set():
            text = "SIGHUP: not reloading, because the worker is stopping"
            _logger.warning(text, extra=log_fields("reload_ignored", cause="SIGHUP"))
        else:
            self._reloader.request("SIGHUP")


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run the coroutine ``work``, and cancel this coroutine if the event is set first.

    Return true if the coroutine has returned. An exception of the coroutine is raised here.
    """
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.wait([working, waiting])
    if working.cancelled():
        return False
    working.result()
    return True


async def _nothing() -> None:
    """Return at once. Used in place of :func:`watch` if no folder is watched."""
