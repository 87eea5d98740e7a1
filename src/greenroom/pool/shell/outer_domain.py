"""Outer domain of a pool: one Landlock domain for its zygotes, its spawned processes, and all that they start.

No process in the domain reaches an abstract UNIX socket that was made outside of it, such as the control socket of
another worker (:mod:`greenroom.system.abstract_scope`).

A process that enters a domain by itself gets one that no other process shares, and only a new process inherits a
domain. If each zygote had its own domain, the sessions of a lost zygote could not call the services of the next one.
And the next zygote could not read by which pool a stray of the lost one is marked. So a thread of the supervisor enters
the domain, and starts the zygotes. Landlock and no_new_privs confine this thread alone, and not the supervisor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ...system import abstract_scope

__all__ = ["OuterDomain"]

P = ParamSpec("P")
T = TypeVar("T")


class OuterDomain:
    """Thread in the outer domain, from :meth:`enter` to :meth:`close`. ``option`` is the option ``walls`` of the pool.

    Without a domain, because walls are off or the kernel has no such domain, there is no thread.
    """

    def __init__(self, option: str) -> None:
        self.problem = ""
        """Reason why there is no domain, though it is wanted."""
        self.outside = ""
        """Name of a socket outside of the domain, with which processes try the wall; empty if no walls are wanted."""
        self._is_wanted = option != "off"
        self._outside: socket.socket | None = None
        self._thread: ThreadPoolExecutor | None = None

    def enter(self) -> None:
        """Start the thread, and have it enter the domain. A failure is noted. Further calls do nothing."""
        if not self._is_wanted or self._outside is not None or self.problem:
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix="greenroom-domain")
        try:
            self._outside, self.outside = abstract_scope.outside_socket()
            thread.submit(abstract_scope.enter).result()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            self.problem = getattr(error, "strerror", None) or str(error)
            thread.shutdown(wait=False)
        else:
            self._thread = thread

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the domain, or in this thread without a domain. The caller waits for the result."""
        if self._thread is None:
            return fn(*args, **kwargs)
        return self._thread.submit(fn, *args, **kwargs).result()

    def stream_socket(self) -> socket.socket:
        """Return a new UNIX stream socket. Processes in the domain can connect to it at an abstract address.

        They reach no other abstract socket of this process. May be called before :meth:`enter`. Raises ``OSError``.
        """
        self.enter()
        return self.run(socket.socket, socket.AF_UNIX)

    def close(self) -> None:
        """End the thread. Processes that it has started stay in the domain, and no further call is possible."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        if self._outside is not None:
            self._outside.close()
