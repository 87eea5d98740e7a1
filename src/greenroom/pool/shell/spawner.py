"""Launcher for ``start_method="spawn"``: a new interpreter for each process, and no zygote.

Processes share and inherit no memory. This is for apps whose libraries do not survive a fork. No zygote reaps the
processes either. When the supervisor is killed, lifelines end the processes, and the reaper ends their descendants.
"""

from __future__ import annotations

import subprocess
import sys

from ...wire import messages as m
from ..core import vocabulary as v
from .child_client import ChildClient
from .interpreters import child_environment, interpreter_flags, pidfd_of
from .tools import Report, Tools

__all__ = ["Spawner"]


class Spawner:
    """Launcher in place of a zygote. Each process loads the app itself; the first one shows whether the app loads."""

    def __init__(self, number: int, tools: Tools, report: Report) -> None:
        self.children: dict[str, ChildClient] = {}
        self._number = number
        self._tools = tools
        self._report = report
        self._configuration: m.Configure

    @property
    def pids(self) -> set[int]:
        """Empty set: no process stands between the supervisor and the spawned processes."""
        return set()

    def start(self, configuration: m.Configure) -> None:
        """Report that the launcher is ready: there is nothing to load."""
        self._configuration = configuration
        self._report(v.LauncherSpawned(self._number, None))
        self._report(v.LauncherLoaded(self._number, None, ""))

    def fork(self, child: ChildClient) -> None:
        """Start a process, and report it."""
        try:
            popen, pidfd = self._tools.domain.run(self._spawn, child.id, child.channels.child_ends)
        except OSError as error:
            child.not_forked(str(error))
            return
        child.channels.close_child_ends()
        child.is_adopted = True  # the supervisor is the parent of this child, and reaps it
        child.forked(popen.pid, pidfd, inherited_mb=0.0)
        child.send(self._configuration)  # a forked process inherits this from its zygote
        popen.returncode = 0  # otherwise Popen's finalizer would wait for the process, and so reap it

    def _spawn(self, process_id: str, fds: tuple[int, ...]) -> tuple[subprocess.Popen[bytes], int]:
        """Start an interpreter with these fds. Return the process and its pidfd. Raises ``OSError``."""
        popen = subprocess.Popen(
            [sys.executable, *interpreter_flags(), "-m", "greenroom.zygote.spawned", process_id, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env=child_environment(self._configuration.pool_token),
            start_new_session=True,
        )
        return popen, pidfd_of(popen)

    def sample(self) -> None:
        """Return ``None``: there is no process to look at."""

    def dump(self) -> None:
        """Report empty stacks: there is no process that could write them."""
        self._report(v.LauncherDumped(self._number, ""))

    def close(self) -> None:
        """Report at once that the launcher is gone."""
        self._report(v.LauncherLost(self._number, "it was closed"))

    def kill(self) -> None:
        """Report at once that the launcher is gone. A spawned process that does not answer has its own deadlines."""
        self._report(v.LauncherLost(self._number, "it was killed"))

    def forget(self) -> None:
        """Do nothing: no channel is open."""
