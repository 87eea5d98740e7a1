"""``start_method="spawn"``: a new interpreter for each process, and no zygote.

Nothing is shared and nothing is inherited: for apps whose libraries do not survive a fork. There is no
zygote to bury either: when the supervisor is killed, the processes go by their lifelines, but what they
have started themselves goes on.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from ..app_setting import unpacked
from ..wire import messages as m
from .contracts import Services
from .process import Process
from .zygote import child_environment, interpreter_flags, pidfd_of

__all__ = ["Spawner"]


class Spawner:
    """Stands where a zygote stands, as seen from the pool."""

    def __init__(self, generation: int, services: Services) -> None:
        self.generation = generation
        self.processes: dict[str, Process] = {}
        self.facts: m.AppFacts | None = None
        """What the first of its processes has told of the app."""
        self.options = services.terms.options
        self._services = services
        self._configuration: m.Configure

    async def load(self, configuration: m.Configure) -> None:
        """Each process loads the app itself; an app that does not load shows in the first of them."""
        self._configuration = configuration

    def learn(self, facts: m.AppFacts) -> None:
        """Each of them tells the same. Raises :class:`AppLoadError` if the app's settings cannot be kept."""
        if self.facts is None:
            self.options = self._services.terms.with_app(unpacked(facts.settings))
            self.facts = facts

    @property
    def pids(self) -> set[int]:
        return set()

    def fork(self, process: Process) -> None:
        fds = process.fork_fds
        arguments = [process.id, *map(str, fds)]
        try:
            popen = subprocess.Popen(
                [sys.executable, *interpreter_flags(), "-m", "greenroom.zygote.spawned", *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                env=child_environment(self._configuration.pool_token),
                start_new_session=True,
            )
            pidfd = pidfd_of(popen)
        except OSError as error:
            # Not now: what follows from it may be the next request.
            asyncio.get_running_loop().call_soon(process.fork_failed, str(error))
            return
        process.fork_sent()
        process.adopt()  # this process is its parent, and its reaper
        process.fork_answered(popen.pid, pidfd)
        process.configure(self._configuration)
        popen.returncode = 0  # not Popen's to wait for: its finalizer must not try

    def sample(self) -> None:
        """There is nothing to look at."""

    def close(self) -> None:
        """There is nothing to close."""

    def kill(self) -> None:
        """There is nothing to kill: a spawned process that does not answer has its own deadlines."""
