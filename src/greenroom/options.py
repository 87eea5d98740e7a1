"""Options of a pool, with their defaults and checks."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypedDict

from .errors import OptionError

__all__ = ["PoolKeywords", "PoolOptions", "checked_seconds"]


class PoolKeywords(TypedDict, total=False):
    """Keywords of :class:`~greenroom.ProcessPool`: the fields of :class:`PoolOptions`."""

    num_idle_processes: int
    max_idle_processes: int | None
    max_jobs: int
    max_concurrent_prewarms: int
    preload_timeout: float
    prewarm_timeout: float
    request_timeout: float
    request_failure: Literal["reject", "accept"]
    reservation_timeout: float
    start_timeout: float
    launch_timeout: float
    job_timeout: float | None
    shutdown_timeout: float
    cleanup_timeout: float
    stall_timeout: float | None
    memory_warn_mb: float | None
    memory_limit_mb: float | None
    process_limit: int | None
    idle_ttl: float
    start_method: Literal["zygote", "spawn"]
    allow_threads: tuple[str, ...]
    huge_pages_seconds: float | None
    flight_recorder_mb: float | None
    walls: Literal["auto", "require", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Options of a pool. Times are seconds, memory is MiB. ``None`` turns a limit off."""

    num_idle_processes: int = 3
    """Number of idle processes that wait for jobs. The pool holds more while jobs arrive quickly."""
    max_idle_processes: int | None = field(default=None, metadata={"none": "auto"})
    """Most idle processes while jobs arrive quickly; ``auto`` is twice ``num_idle_processes``."""
    max_jobs: int = 100
    """Most jobs at the same time, from the acceptance until the process is gone."""
    max_concurrent_prewarms: int = 4
    """Most processes between fork and idle at the same time. In a reload, the new code may have as many again. When a
    process misses ``prewarm_timeout`` beside others, the number is halved. The number rises again when processes
    become idle in time."""
    preload_timeout: float = 120.0
    """Time for the import of the app and for ``preload`` in the zygote."""
    prewarm_timeout: float = 10.0
    """Time from the fork until the process is idle."""
    request_timeout: float = 1.0
    """Time for the app's ``request`` function to accept or reject an offered job."""
    request_failure: Literal["reject", "accept"] = "reject"
    """Answer to an offered job if ``request`` gives none, because it is late or its process has ended."""
    reservation_timeout: float = 10.0
    """Time that a process is reserved for a job until its launch."""
    start_timeout: float = 5.0
    """Time for a process to acknowledge its job. After that, another process gets the job."""
    launch_timeout: float = 10.0
    """Default deadline of a launch, from ``launch()`` until the job has started."""
    job_timeout: float | None = None
    """Longest run of a job."""
    shutdown_timeout: float = 10.0
    """Time for a job to end after a cancel or drain, and then the same time for its shutdown callbacks."""
    cleanup_timeout: float = 5.0
    """Time for a process to exit after the shutdown callbacks: tasks, threads, ``atexit``, flushing."""
    stall_timeout: float | None = 15.0
    """Longest stall of the event loop of a running job. Time in which the process only lacks CPU does not count."""
    memory_warn_mb: float | None = 1000.0
    """Memory of a process (PSS) above which one warning is logged."""
    memory_limit_mb: float | None = None
    """Memory of a process (PSS) above which the process is killed. Pages of the app's image that the process has not
    written to never count in full. This holds also for the last process with these pages."""
    process_limit: int | None = 1000
    """Most processes of one job, including all that it has started. Above this number, all of them are killed."""
    idle_ttl: float = 60.0
    """Time after which an idle process above the idle target is ended."""
    start_method: Literal["zygote", "spawn"] = "zygote"
    """``zygote``: processes are forked from a preloaded image. ``spawn``: each process is a new interpreter, which
    loads the app within ``prewarm_timeout``. A loading error then shows in the first process."""
    allow_threads: tuple[str, ...] = ()
    """Names of threads that may be alive in the zygote when it forks, in addition to those that the app names. A fork
    copies only one thread. A lock that another thread holds at that moment stays locked in each process."""
    huge_pages_seconds: float | None = 1.0
    """CPU time that a zygote may take, before its first fork, to move the image of the app into huge pages. Then a fork
    of a large image takes a fraction of the time. ``off``: the memory stays as it is."""
    flight_recorder_mb: float | None = 8.0
    """Memory (MiB, at most 64) for the flight recorder, which keeps the pool's latest events and decisions. Metadata,
    results and error messages are not recorded. ``off`` or 0: nothing is recorded. See `greenroom debug`."""
    walls: Literal["auto", "require", "off"] = "auto"
    """Walls around sessions: a session cannot signal, read or limit the supervisor, the zygote or another session, or
    connect to abstract sockets of other programs. ``auto``: all walls that the kernel has. ``require``: the worker does
    not start if one is missing. ``off``: none, for sessions that need programs with a setuid bit, such as sudo."""

    def __post_init__(self) -> None:
        self._check_threads()
        self._check_counts()
        self._check_times()
        self._check_memory()
        self._check_huge_pages()
        self._check_recorder()
        if self.request_failure not in ("reject", "accept"):
            raise OptionError(f"request_failure is {self.request_failure!r}; it must be 'reject' or 'accept'")
        if self.walls not in ("auto", "require", "off"):
            raise OptionError(f"walls is {self.walls!r}; it must be 'auto', 'require' or 'off'")
        if self.start_method not in ("zygote", "spawn"):
            raise OptionError(f"start_method is {self.start_method!r}; it must be 'zygote' or 'spawn'")

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> PoolOptions:
        """Return options made from keywords. The error for an unknown keyword names the nearest known one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in keywords:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else f"; known options: {', '.join(known)}"
                raise OptionError(f"unknown pool option {name!r}{hint}")
        return cls(**keywords)

    @property
    def idle_ceiling(self) -> int:
        """Largest idle target, with the default filled in."""
        return 2 * self.num_idle_processes if self.max_idle_processes is None else self.max_idle_processes

    def _check_threads(self) -> None:
        names = self.allow_threads
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise OptionError(f"allow_threads is {names!r}; it must be a list of names")

    def _check_counts(self) -> None:
        for name, least in (("num_idle_processes", 0), ("max_jobs", 1), ("max_concurrent_prewarms", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise OptionError(f"{name} is {value!r}; it must be a whole number of at least {least}")
        limit = self.process_limit
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise OptionError(f"process_limit is {limit!r}; it must be a whole number of at least 1, or None")
        ceiling = self.max_idle_processes
        if ceiling is None:
            return
        if not isinstance(ceiling, int) or isinstance(ceiling, bool) or ceiling < self.num_idle_processes:
            raise OptionError(
                f"max_idle_processes is {ceiling!r}; it must be a whole number of at least "
                f"num_idle_processes ({self.num_idle_processes})"
            )

    def _check_times(self) -> None:
        optional = {"job_timeout", "stall_timeout"}
        for name in _times():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            checked_seconds(name, value)

    def _check_memory(self) -> None:
        for name in ("memory_warn_mb", "memory_limit_mb"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < 10**9):
                raise OptionError(f"{name} is {value!r}; it must be a number of MiB above 0, or None")

    def _check_huge_pages(self) -> None:
        seconds = self.huge_pages_seconds
        if seconds is not None and not (_is_number(seconds) and 0 < seconds < 10**9):
            raise OptionError(f"huge_pages_seconds is {seconds!r}; it must be a number of seconds above 0, or None")

    def _check_recorder(self) -> None:
        size = self.flight_recorder_mb
        if size is not None and size != 0 and not (_is_number(size) and _LEAST_MB <= size <= _MOST_MB):
            raise OptionError(
                f"flight_recorder_mb is {size!r}; it must be a number of MiB from {_LEAST_MB:g} to {_MOST_MB:g}, or 0"
            )


_LEAST_MB, _MOST_MB = 0.25, 64.0


@cache
def _times() -> tuple[str, ...]:
    names = (one.name for one in dataclasses.fields(PoolOptions))
    return tuple(name for name in names if name.endswith(("_timeout", "_ttl")))


def checked_seconds(name: str, value: object) -> float:
    """Return a checked number of seconds for a deadline. Raises :class:`OptionError` for NaN and for 0 or less."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 10**9:
        raise OptionError(f"{name} is {value!r}; it must be a number of seconds above 0")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
