"""Walls between a session and the rest of the worker, raised in each fork of the zygote.

There is a domain of Landlock (:mod:`greenroom.system.landlock`), which closes memory and signals of processes outside,
and a seccomp filter (:mod:`greenroom.system.seccomp`), which closes their resource limits. The zygote does not enter
this domain, because it must end the strays of an earlier zygote.

Both need no_new_privs, and no privilege. They are prepared in the zygote, so that a fork makes two system calls. A
trial (:mod:`.wall_trial`) tells which walls stand.

A second domain is around all of these processes, and closes abstract sockets. Zygotes and spawned processes are started
in it (:mod:`greenroom.pool.shell.outer_domain`), so nothing here raises that wall.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..system import landlock, open_files, prctl, seccomp

__all__ = ["Walls"]


class Walls:
    """Walls of the forks of one zygote, or of one spawned process. A wall that the kernel lacks is left out.

    ``option`` is the option ``walls`` of the pool. ``domain_problem`` says why this process is not in the pool's outer
    domain; empty if it is.
    """

    def __init__(self, option: str, domain_problem: str) -> None:
        self.are_wanted = option != "off"
        self.are_required = option == "require"
        self.problems: dict[str, str] = {}
        """Cause for each wall that could not be raised: ``memory``, ``signals``, ``sockets`` or ``limits``."""
        self._domain = -1
        self._filter: seccomp.Filter | None = None
        if self.are_wanted and domain_problem:
            self.problems["sockets"] = domain_problem
        if self.are_wanted:
            self._prepare()

    def _prepare(self) -> None:
        with self._noting("signals"):
            self._domain = landlock.scoped_ruleset(landlock.SCOPE_SIGNALS)
        if self._domain == -1:
            with self._noting("memory"):
                self._domain = landlock.plain_ruleset()
        with self._noting("limits"):
            self._filter = seccomp.Filter()

    def allow(self) -> None:
        """Set no_new_privs in the zygote, for all that it will start. Call this before any code of the app runs."""
        if self.are_wanted:
            with self._noting("memory", "signals", "limits"):
                prctl.set_no_new_privileges()

    def raise_in_fork(self) -> None:
        """Enter the domain, and put this process behind the filter.

        Raises ``OSError`` if all walls are required, and one of them cannot be raised.
        """
        if self._domain != -1:
            with self._noting("memory", "signals", is_fatal=self.are_required):
                landlock.enter(self._domain)
                os.close(self._domain)  # after an error, the fd may belong to the app, which has closed ours
            self._domain = -1
        if self._filter is not None:
            with self._noting("limits", is_fatal=self.are_required):
                self._filter.enter()

    def raise_in_session(self) -> None:
        """Raise all walls in a process of a session, and print which ones cannot be raised there of all places.

        An app may close fds that are not its own in ``preload``. Raises ``OSError`` as :meth:`raise_in_fork` does.
        """
        known = set(self.problems)
        if self.are_wanted:
            open_files.keep_back()
        try:
            self.raise_in_fork()
        finally:
            for name in sorted(self.problems.keys() - known):
                print(f"greenroom: no wall for {name} around this process: {self.problems[name]}", file=sys.stderr)

    @contextmanager
    def _noting(self, *names: str, is_fatal: bool = False) -> Iterator[None]:
        """Note an ``OSError`` as the problem of these walls, and pass the error on only if it is fatal."""
        try:
            yield
        except OSError as error:
            cause = error.strerror or str(error)
            for name in names:
                self.problems.setdefault(name, cause)
            if is_fatal:
                raise
