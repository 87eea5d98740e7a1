"""Which zygote forks now: the first one, its replacement when it is lost, the next one at a reload."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

from ..errors import AppLoadError, PoolClosed, PrewarmError
from ..log_fields import log_fields
from ..options import PoolOptions
from ..report import ExitReport
from ..system import open_files
from ..wire import messages as m
from .breaker import Breaker
from .contracts import Launcher
from .events import Reloaded, ReloadFailed, ZygoteLost, ZygoteStarted
from .exits import Decision
from .fleet import Fleet
from .process import Process
from .program import Program
from .spawn import Spawner
from .watch import CHECKS_PER_TIMEOUT
from .zygote import Zygote

__all__ = ["Generations"]

_logger = logging.getLogger("greenroom")

SETTLED = 10.0
"""Seconds after which the loss of a zygote is not put down to what was wrong with the one before."""


class Generations:
    """Implements :class:`~greenroom.pool.zygote.ZygoteOwner`."""

    def __init__(self, app: str, token: str, fleet: Fleet, program: Program) -> None:
        self.launchers: set[Zygote | Spawner] = set()
        self.zygote_restarts = 0
        self._app = app
        self._token = token
        self._fleet = fleet
        self._program = program
        self._clock = fleet.clock
        self._events = fleet.services.events
        self._number = 0
        self._changing = asyncio.Lock()  # held while an app loads, never while a session lives
        self._breaker = Breaker()
        self._restarting: asyncio.Task[None] | None = None
        self._trial: _Trial | None = None
        self._one_gone = asyncio.Event()

    @property
    def pids(self) -> set[int]:
        return self._program.pids.union(*(launcher.pids for launcher in self.launchers))

    async def start(self) -> None:
        """Load the app. Raises :class:`AppLoadError`, or :class:`PoolClosed` if the pool is closed meanwhile."""
        try:
            await self._program.start()
            self._check_open()
            launcher = await self._load()
            self._program.check()
        except AppLoadError:
            self._check_open()  # if it is closed, that is the cause, and says nothing about the code
            raise
        self._serve_from(launcher, has_new_code=True)

    async def reload(self) -> None:
        """Load the app anew and serve from that; if it does not load or become warm, nothing changes.

        Raises :class:`AppLoadError`, :class:`PrewarmError`, or :class:`PoolClosed` if the pool drains. Jobs that
        run go on with the code they have.

        A script that is run anew at each reload is ended before: two at once might want the same port. So if the
        new one fails, what the old one had started is gone, and the log says so; sessions are served as before.
        """
        async with self._changing:
            self._check_wanted()
            begin = time.monotonic()
            new = await self._load_and_prove()
            self._fleet.breaker.succeeded()  # those failures were the old code's
            self._serve_from(new, has_new_code=True)
            self._events.publish(Reloaded(new.generation, time.monotonic() - begin))
            # A lost zygote may have left idle processes: they have the old code, too.
            lost: set[Launcher] = {process.launcher for process in self._fleet.processes.values()}
            for launcher in lost.union(self.launchers) - {new}:
                self._retire(launcher, "its code was reloaded")
            self._fleet.balance()

    def give_up_reload(self) -> None:
        """The pool drains: new code would have nothing to serve, and what is on trial would hold the drain up."""
        if self._trial is not None:
            self._trial.fail("the pool is draining")

    def _check_wanted(self) -> None:
        """A pool that drains or closes needs no new code."""
        self._check_open()
        if self._fleet.is_draining:
            raise PoolClosed("the pool is draining: it is not reloaded any more")

    def _check_open(self) -> None:
        if self._fleet.is_closing:
            raise PoolClosed("the pool is closed: its app is not loaded any more")

    def _check_alive(self, new: Launcher) -> None:
        """It may have been lost in the same turn of the event loop in which the last of its processes became idle."""
        if new not in self.launchers:
            raise PrewarmError("the new code became warm, and then its zygote was lost")

    async def _load_and_prove(self) -> Zygote | Spawner:
        try:
            await self._program.renew()
            self._check_wanted()
            new = await self._load()
            try:
                self._check_wanted()
                await self._prove(new)
                self._check_wanted()
                self._check_alive(new)
            except BaseException:
                self._retire(new, "the new code does not serve")
                raise
        except (AppLoadError, PrewarmError) as error:
            self._check_wanted()  # if it is not, that is the cause, and says nothing about the code
            self._events.publish(ReloadFailed(str(error)))
            raise
        return new

    async def close(self) -> None:
        """End all zygotes, and the script. All processes have ended before."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        for launcher in list(self.launchers):
            self._close(launcher)
        await asyncio.gather(self._program.close(), self._launchers_gone())

    async def _launchers_gone(self) -> None:
        while self.launchers:
            self._one_gone.clear()
            await self._one_gone.wait()

    # --- loading and proving ---------------------------------------------------------------------

    async def _load(self) -> Zygote | Spawner:
        self._number += 1
        services = self._fleet.services
        launcher: Zygote | Spawner
        if services.options.start_method == "spawn":
            launcher = Spawner(self._number, services)
        else:
            launcher = Zygote(self._number, services, self)
        self.launchers.add(launcher)
        try:
            await launcher.load(self._configuration(services.terms.options))
        except OSError as error:
            self.launchers.discard(launcher)  # there is no process whose end would do that
            raise AppLoadError(f"a zygote could not be started: {error}") from error
        if launcher not in self.launchers:
            raise AppLoadError("the zygote was lost as soon as it had loaded the app")
        return launcher

    def _configuration(self, options: PoolOptions) -> m.Configure:
        # A beat must come well within the time between two looks at it.
        interval = 1.0 if options.stall_timeout is None else options.stall_timeout / CHECKS_PER_TIMEOUT / 2
        return m.Configure(
            app=self._app,
            arguments=self._program.arguments,
            handed=self._program.handed,
            sys_path=[path or os.getcwd() for path in sys.path],
            generation=self._number,
            pool_token=self._token,
            open_files=open_files.original_soft_limit(),
            child=m.ChildSettings(
                shutdown_timeout=options.shutdown_timeout,
                cleanup_timeout=options.cleanup_timeout,
                heartbeat_interval=min(interval, 1.0),
            ),
            fixed=sorted(self._fleet.services.terms.fixed),
            allow_threads=list(options.allow_threads),
            preload_timeout=options.preload_timeout,
        )

    def _serve_from(self, launcher: Launcher, *, has_new_code: bool) -> None:
        self._fleet.use_launcher(launcher, has_new_code=has_new_code)
        pid = next(iter(launcher.pids), None)
        loaded = launcher.loaded if isinstance(launcher, Zygote) else None
        seconds = (loaded.import_seconds, loaded.preload_seconds) if loaded else (0.0, 0.0)
        self._events.publish(ZygoteStarted(launcher.generation, pid, *seconds))

    async def _prove(self, launcher: Launcher) -> None:
        """Wait until as many processes of new code are idle as the idle target says, and at least one.

        All the while the old code serves, and is forked from, as if nothing were.
        """
        wanted = max(self._fleet.idle_target(), 1)  # without a process nothing is proven
        self._trial = _Trial(launcher, wanted, self._fleet)
        try:
            self._trial.begin()
            await self._trial.outcome
        finally:
            self._trial = None

    def process_became_idle(self, process: Process) -> None:
        if self._trial is not None:
            self._trial.became_idle(process)

    def process_ended(self, process: Process, report: ExitReport) -> None:
        if self._trial is not None:
            self._trial.ended(process, report)
        in_use = (self._fleet.launcher, self._trial and self._trial.launcher)
        if process.launcher not in in_use and process.launcher in self.launchers:
            self._close_if_unused(process.launcher)

    # --- retiring and losing ---------------------------------------------------------------------

    def _retire(self, launcher: Launcher, cause: str) -> None:
        """Use it for nothing new; it is closed when its last job has ended."""
        decision = Decision("drained", cause)
        for process in self._fleet.processes_of(launcher):
            if process.launch is None:
                process.stop(decision)
        self._close_if_unused(launcher)

    def _close_if_unused(self, launcher: Launcher) -> None:
        if not self._fleet.processes_of(launcher):
            self._close(launcher)

    def _close(self, launcher: Launcher) -> None:
        launcher.close()
        if isinstance(launcher, Spawner):
            self.launchers.discard(launcher)

    def zygote_lost(self, zygote: Zygote) -> None:
        self.launchers.discard(zygote)
        was_serving = self._fleet.launcher is zygote
        if was_serving:
            self._fleet.lose_launcher()  # first of all: what follows must not ask it for forks
        self._pass_on_children(zygote)
        if self._trial is not None and self._trial.launcher is zygote:
            self._trial.fail("its zygote was lost")
        if was_serving and not self._fleet.is_closing:
            self._note_loss(zygote)
            self._restart_soon()
        self._one_gone.set()

    def _pass_on_children(self, zygote: Zygote) -> None:
        """Its children are this process's now; what it may have forked without saying so is ended."""
        processes = list(zygote.processes.values())
        zygote.processes.clear()
        for process in processes:
            if process.pid is None:
                process.abandon("its zygote was lost")
            else:
                process.adopt()
        self._fleet.services.strays.sweep(lambda _: None)

    def _note_loss(self, zygote: Zygote) -> None:
        now = self._clock.now()
        if now - zygote.loaded_at > SETTLED:
            self._breaker.succeeded()
        self._breaker.failed(now, f"zygote {zygote.pid} was lost")
        if self._breaker.is_open:
            self._fleet.has_no_launcher(f"it was lost {self._breaker.failures} times in a row")
        live = len(self._fleet.processes_of(zygote))
        self._events.publish(ZygoteLost(zygote.generation, zygote.pid, zygote.ending))
        extra = log_fields("zygote_lost", job_pid=zygote.pid, generation=zygote.generation, cause=zygote.ending)
        _logger.error("zygote %d was lost (%s); its %d processes go on", zygote.pid, zygote.ending, live, extra=extra)

    def _restart_soon(self) -> None:
        if not self._fleet.is_closing and (self._restarting is None or self._restarting.done()):
            self._restarting = asyncio.create_task(self._restart(), name="greenroom-zygote-restart")

    async def _restart(self) -> None:
        """Load the app again until that succeeds, at a bounded rate."""
        while True:
            await asyncio.sleep(self._breaker.wait(self._clock.now()))
            async with self._changing:
                if self._fleet.launcher is not None:
                    return
                try:
                    launcher = await self._load()
                except AppLoadError as error:
                    self._breaker.failed(self._clock.now(), str(error))
                    self._fleet.has_no_launcher(str(error))
                    extra = log_fields("zygote_not_replaced", cause=str(error))
                    _logger.error("the zygote could not be replaced; trying again: %s", error, extra=extra)
                else:
                    self.zygote_restarts += 1
                    self._serve_from(launcher, has_new_code=False)


class _Trial:
    """Whether new code becomes warm: some processes of it, forked beside those of the old."""

    def __init__(self, launcher: Launcher, wanted: int, fleet: Fleet) -> None:
        self.launcher = launcher
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fleet = fleet
        self._to_fork = self._missing = wanted

    def begin(self) -> None:
        for _ in range(min(self._to_fork, self._fleet.most_prewarms())):
            self._fork_one()

    def became_idle(self, process: Process) -> None:
        if process.launcher is not self.launcher:
            return
        self._missing -= 1
        if self._missing > 0:
            self._fork_one()
        elif not self.outcome.done():
            self.outcome.set_result(None)

    def ended(self, process: Process, report: ExitReport) -> None:
        if process.launcher is self.launcher and not process.idle_since:
            self.fail(report.detail)

    def fail(self, cause: str) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(PrewarmError(f"the new code did not become warm: {cause}"))

    def _fork_one(self) -> None:
        if self._to_fork > 0:
            self._to_fork -= 1
            if not self._fleet.fork_from(self.launcher):
                self.fail("there are no resources for another process")
