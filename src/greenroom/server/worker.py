"""The worker: a pool and its API, from the first signal handler to the last exit report."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import AppLoadError, GreenroomError, OptionError
from ..exit_codes import ExitCode
from ..log_fields import log_fields
from ..pool import Invocation
from ..settings import Settings
from ..settings.layers import Resolved
from ..settings.open_files import Limits
from ..system import wakeup
from .admission import Closed
from .assembly import assemble
from .in_force import SettingsInForce
from .job_metrics import VARIABLE as PROMETHEUS_DIR
from .limits import apply_limits
from .orphans import OrphanReaper
from .probes import Probes
from .reload import Reloader, watch
from .sources import Source
from .systemd import Notifier
from .web import listen

__all__ = ["Worker"]

_logger = logging.getLogger("greenroom")

_LOADING = Closed("warming", "the app is still being loaded", retry_after=1.0)
_STOPPING = Closed("draining", "the worker is stopping", retry_after=5.0)


class Worker:
    """Serves an app until a signal ends it.

    SIGTERM and SIGINT drain: accepted jobs go on for up to ``drain_timeout``, and no others are taken. A second
    one ends them at once. SIGHUP reloads; so do changed sources, if there is a folder to watch. ``arguments`` are for
    the app's script. ``more_sources`` are sources of sessions beside those that are always there.
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
        words = ("dev" if is_dev else "start", *arguments)
        invocation = Invocation(words, is_renewed=is_dev, on_stop=self._stop_by_script)
        self._parts = parts = assemble(app, resolved, invocation, is_dev=is_dev, more_sources=more_sources)
        self._pool, self._admission, self._sources = parts.pool, parts.admission, parts.sources
        self._drain_timeout = settings.server.drain_timeout
        self._in_force = SettingsInForce(resolved, parts.pool, self._go_by)
        self._probes = Probes(parts.probe_server)
        self._systemd = Notifier()
        self._reloader = Reloader(self._pool, lambda: self._systemd.reloading(f"serving {app}"))
        self._stopping = asyncio.Event()
        self._ending = asyncio.Event()
        self._exit_code: int = ExitCode.OK

    async def run(self) -> int:
        """Serve; returns the exit code. Nothing is left running then."""
        options = self._settings.server
        limits = apply_limits(self._settings.pool, options)
        try:
            sock = listen(options.host, options.port)
        except OSError as error:
            _logger.error("cannot listen on %s, port %d: %s", options.host, options.port, error.strerror)
            return ExitCode.LISTEN
        try:
            self._parts.job_metrics.start()  # not before: the folder may be another worker's, which has this port
        except OSError as error:
            sock.close()
            _logger.error("cannot use %s for the metrics of jobs: %s", PROMETHEUS_DIR, error)
            return ExitCode.USAGE
        with self._signals(), self._systemd, OrphanReaper(self._pool.owns).watching():
            await self._serve(sock, limits)
        return self._exit_code

    async def _serve(self, sock: socket.socket, limits: Limits) -> None:
        self._admission.closed = _LOADING
        options = self._settings.server
        server = self._parts.server(sock, options, limits.connections, self._reloader, self._drain_by_request)
        await server.start()
        try:
            if await self._load():
                if await self._heed_app(server.url.port) and await self._open_sources():
                    self._announce(str(server.url))
                    await self._steer()
                await self._drain()
        finally:
            if not self._ending.is_set():
                await _unless(self._ending, self._pool.aclose())
            await self._pool.aclose(kill=True)  # after a second signal; else there is nothing left to kill
            await self._parts.book.settled()
            await self._sources.close()
            self._parts.end_streams()
            await self._parts.job_metrics.close()
            await self._probes.close()
            await server.close()
            if self._parts.spans is not None:
                await self._parts.spans.close()
        _logger.info("ended", extra=log_fields("ended"))

    # --- phases ----------------------------------------------------------------------------------

    async def _load(self) -> bool:
        """Load the app and warm up; false if that failed, or is not wanted any more."""
        _logger.info("loading %s", self._app, extra=log_fields("loading", app=self._app))
        self._systemd.status(f"loading {self._app}")
        try:
            is_loaded = await _unless(self._stopping, self._pool.start())
        except AppLoadError as error:
            _logger.error("%s", error)
            self._exit_code = ExitCode.APP
            return False
        return is_loaded

    async def _heed_app(self, api_port: int | None) -> bool:
        """Go by what the app sets, from here on; false if that cannot be, or is not wanted any more."""
        try:
            self._settings = settings = self._in_force.take_on()
            self._drain_timeout = settings.server.drain_timeout
            is_open = await _unless(self._stopping, self._probes.open(settings.server, api_port))
        except OptionError as error:
            _logger.error("%s", error)
            self._exit_code = ExitCode.USAGE
        except OSError as error:
            _logger.error("%s", error.strerror)
            self._exit_code = ExitCode.LISTEN
        else:
            return is_open
        self._begin_to_stop("the app's settings cannot be kept")
        return False

    def _go_by(self, settings: Settings, is_first: bool) -> None:
        """Go by what an app sets that was heard late (``is_first``), or that a reload has brought."""
        self._settings = settings
        if self._stopping.is_set():
            return
        self._drain_timeout = settings.server.drain_timeout
        if is_first:
            self._probes.move(settings.server)
        else:
            self._probes.compare(settings.server)

    async def _open_sources(self) -> bool:
        """False if that failed, or is not wanted any more. Those that are open may have brought sessions by then."""
        if not self._stopping.is_set():
            self._admission.closed = None  # not before: whoever hears that it is ready sends sessions at once
        try:
            return await _unless(self._stopping, self._sources.open(self._admission))
        except (GreenroomError, TimeoutError) as error:
            _logger.error("%s", error)
            self._exit_code = ExitCode.NEGATIVE if isinstance(error, TimeoutError) else ExitCode.USAGE
        self._begin_to_stop("a source of sessions did not open")
        return False

    def _announce(self, url: str) -> None:
        stats = self._pool.stats()
        self._systemd.ready(f"serving {self._app} on {url}")
        extra = log_fields("serving", app=self._app, url=url, idle=stats.idle, generation=stats.generation)
        _logger.info("serving %s on %s, with %d idle processes", self._app, url, stats.idle, extra=extra)
        if stats.breaker_cause:
            _logger.warning("processes do not become warm yet: %s", stats.breaker_cause)
        _logger.info(
            "to start a session: curl %s/v1/jobs -H 'Content-Type: application/json' -d '{\"metadata\": {}}'", url
        )

    async def _steer(self) -> None:
        """Reload as asked, until it is time to stop."""
        watching = watch(self._watched, self._reloader, self._stopping) if self._watched else _nothing()
        await asyncio.gather(_unless(self._stopping, self._reloader.run()), watching)

    async def _drain(self) -> None:
        timeout, jobs = self._drain_timeout, self._pool.stats().jobs
        extra = log_fields("draining", jobs=jobs, timeout=timeout)
        text = "draining: %d jobs may go on for %g s; a second signal ends them at once"
        _logger.info(text, jobs, timeout, extra=extra)
        self._systemd.status(f"draining: {jobs} jobs may go on for {timeout:g} s")
        if not await _unless(self._ending, self._pool.drain(timeout)):
            _logger.warning("ending %d jobs without waiting for them", self._pool.stats().jobs)

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
        """What SIGTERM does, asked for by HTTP; asked for again, it changes nothing."""
        if not self._stopping.is_set():
            self._drain_timeout = timeout or self._drain_timeout
            self._begin_to_stop("a drain was asked for by HTTP")
        return self._drain_timeout

    def _stop_by_script(self) -> None:
        if not self._stopping.is_set():
            self._begin_to_stop("the main block closed its server")

    def _begin_to_stop(self, cause: str) -> None:
        _logger.info("%s: stopping", cause, extra=log_fields("stopping", cause=cause))
        # From this moment on, not from when the drain begins.
        self._admission.closed = _STOPPING
        self._sources.pause()
        self._systemd.stopping()
        self._stopping.set()

    def _hang_up(self) -> None:
        self._pool.had_signal()
        if self._stopping.is_set():
            _logger.warning("SIGHUP: not reloading, because the worker is stopping")
        else:
            self._reloader.request("SIGHUP")


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, unless the event comes first: then it is cancelled. Returns whether it was done."""
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
    """Stands where there is nothing to do."""
