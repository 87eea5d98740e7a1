"""Launchers of a pool: zygotes or spawners, and the process in which the app's script runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from ...errors import AppLoadError, PoolClosed
from ...log_fields import log_fields
from ...system import open_files
from ...wire import messages as m
from ..core import vocabulary as v
from ..core.effective_options import EffectiveOptions
from ..core.stalls import Sample
from .child_client import ChildClient
from .interpreters import import_path
from .script_client import ScriptClient
from .spawner import Spawner
from .tools import Report, Tools
from .watch import CHECKS_PER_TIMEOUT
from .zygote_client import ZygoteClient

__all__ = ["Launchers"]

_logger = logging.getLogger("greenroom")


class Launchers:
    """Launchers of one pool, by number."""

    def __init__(
        self,
        app: str,
        token: str,
        effective: Callable[[], EffectiveOptions],
        script: ScriptClient,
        tools: Tools,
        report: Report,
    ) -> None:
        self._app = app
        self._token = token
        self._effective = effective
        self._script = script
        self._tools = tools
        self._report = report
        self._launchers: dict[int, ZygoteClient | Spawner] = {}
        self._starting: dict[int, asyncio.Task[None]] = {}

    @property
    def pids(self) -> set[int]:
        """Pids of the launchers and of the script, which run no job."""
        return self._script.pids.union(*(launcher.pids for launcher in self._launchers.values()))

    def fork(self, number: int, child: ChildClient) -> None:
        """Request a process from a launcher."""
        self._launchers[number].fork(child)

    def sample(self, number: int) -> Sample | None:
        """Return a sample of a launcher. Return ``None`` if the launcher has no process."""
        return self._launchers[number].sample()

    def start(self, effect: v.StartLauncher) -> None:
        """Start a launcher. Run the app's script before the launcher, if the effect says so."""
        task = asyncio.create_task(self._start(effect), name="greenroom-launcher")
        self._starting[effect.launcher] = task
        task.add_done_callback(partial(self._started, effect.launcher))

    async def _start(self, effect: v.StartLauncher) -> None:
        if effect.script == "run":
            await self._script.start()
        elif effect.script == "renew":
            await self._script.renew()
        launcher = self._make(effect)
        self._launchers[effect.launcher] = launcher
        launcher.start(self._configuration(effect.generation, self._effective()))

    def _make(self, effect: v.StartLauncher) -> ZygoteClient | Spawner:
        report = self._report_checked if effect.script == "run" else self._report
        if self._effective().options.start_method == "spawn":
            return Spawner(effect.launcher, self._tools, report)
        return ZygoteClient(effect.launcher, effect.generation, self._tools, report)

    def _report_checked(self, happening: v.Happening) -> None:
        """Report an event. An app whose script has complained after it handed over is reported as failed to load."""
        if isinstance(happening, v.LauncherLoaded) and self._script.complaint is not None:
            happening = v.LauncherFailed(happening.launcher, self._script.complaint)
        self._report(happening)

    def _started(self, number: int, task: asyncio.Task[None]) -> None:
        """Report a launcher whose start has failed. There is no process then."""
        self._starting.pop(number, None)
        if task.cancelled():
            self._report(v.LauncherLost(number, "it was not started"))
            return
        error = task.exception()
        if error is None:
            return
        self._launchers.pop(number, None)
        if isinstance(error, OSError):
            error = AppLoadError(f"a zygote could not be started: {error}")
        elif isinstance(error, PoolClosed):
            error = AppLoadError(str(error))
        elif not isinstance(error, AppLoadError):
            _logger.error("a zygote could not be started", exc_info=error, extra=log_fields("internal_error"))
            error = AppLoadError(f"a zygote could not be started: {error!r}")
        self._report(v.LauncherFailed(number, error, is_gone=True))

    def _configuration(self, generation: int, effective: EffectiveOptions) -> m.Configure:
        options = effective.options
        # The child must beat well within the time between two looks at its beats.
        interval = 1.0 if options.stall_timeout is None else options.stall_timeout / CHECKS_PER_TIMEOUT / 2
        return m.Configure(
            app=self._app,
            arguments=self._script.arguments,
            handed=self._script.handed,
            sys_path=import_path(),
            generation=generation,
            pool_token=self._token,
            open_files=open_files.original_soft_limit(),
            child=m.ChildSettings(
                shutdown_timeout=options.shutdown_timeout,
                cleanup_timeout=options.cleanup_timeout,
                heartbeat_interval=min(interval, 1.0),
            ),
            fixed=sorted(effective.fixed),
            allow_threads=list(options.allow_threads),
            preload_timeout=options.preload_timeout,
            huge_pages_seconds=options.huge_pages_seconds,
            walls=options.walls,
            outside=self._tools.domain.outside,
            domain_problem=self._tools.domain.problem,
        )

    def dump(self, number: int) -> None:
        """Request the stacks of a launcher."""
        self._launchers[number].dump()

    def close(self, number: int) -> None:
        """Ask a launcher to exit."""
        self._launchers[number].close()

    def kill(self, number: int) -> None:
        """Kill a launcher, or cancel its start."""
        if number in self._launchers:
            self._launchers[number].kill()
        elif number in self._starting:
            self._starting[number].cancel()

    def lost(self, number: int) -> None:
        """Forget a launcher that is gone. The supervisor is the parent of the launcher's processes now."""
        launcher = self._launchers.pop(number, None)
        if launcher is not None:
            for child in launcher.children.values():
                child.is_adopted = True
            launcher.children.clear()
        self._tools.orphans.sweep(lambda _: None)  # kill forks that the launcher may not have reported

    def forget(self, number: int) -> None:
        """Go on without a launcher that SIGKILL does not end."""
        launcher = self._launchers.get(number)
        if launcher is not None:
            launcher.forget()
        self.lost(number)

    async def close_script(self) -> None:
        """End the app's script, and wait for its end."""
        await self._script.close()

    def kill_script(self) -> None:
        """Kill the app's script at once."""
        self._script.kill()
