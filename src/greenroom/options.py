"""The options of a pool: declared once, here, checked once, and passed on whole."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import OptionError

__all__ = ["PoolOptions", "checked_seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How a pool behaves. Times are seconds, memory is MiB; ``None`` switches a limit off."""

    num_idle_processes: int = 3
    """How many warm processes wait for a session when nothing else calls for more."""
    max_idle_processes: int | None = field(default=None, metadata={"none": "auto"})
    """Upper bound of the idle target when sessions arrive quickly; ``auto`` is twice ``num_idle_processes``."""
    max_jobs: int = 100
    """Sessions accepted at any one time, from acceptance until the process is gone. A hard cap."""
    max_concurrent_prewarms: int = 4
    """How many processes may be between fork and idle at the same time; in a reload, as many again of new code. When
    one misses ``prewarm_timeout`` beside others, half as many may from then on; more again as others keep it."""
    preload_timeout: float = 120.0
    """For importing the app and running ``preload`` in the zygote."""
    prewarm_timeout: float = 10.0
    """From the fork until the process is idle."""
    request_timeout: float = 1.0
    """For the app's ``request`` function to accept or turn down a session that is offered."""
    reservation_timeout: float = 10.0
    """How long a process is kept for a session that was accepted, until the order to start it comes."""
    start_timeout: float = 5.0
    """From handing a job to a process until the process acknowledges it; then another one is tried."""
    launch_timeout: float = 10.0
    """The deadline of a launch that names none: from ``launch()`` until the job has started."""
    job_timeout: float | None = None
    """How long a job may run."""
    shutdown_timeout: float = 10.0
    """For the job to stop when it is told to, and then for its shutdown callbacks."""
    cleanup_timeout: float = 5.0
    """For the process to exit after the user's callbacks: tasks, threads, ``atexit``, flushing."""
    stall_timeout: float | None = 15.0
    """How long the event loop of a running job may stand still, unless it is merely short of CPU."""
    memory_warn_mb: float | None = 1000.0
    """Proportional memory (PSS) of a process above which a warning is logged, once."""
    memory_limit_mb: float | None = None
    """Proportional memory (PSS) of a process above which it is killed."""
    idle_ttl: float = 60.0
    """How long an idle process above the idle target is kept."""
    start_method: Literal["zygote", "spawn"] = "zygote"
    """``zygote``: fork from a preloaded image. ``spawn``: a new interpreter for each process, which loads the
    app within ``prewarm_timeout``; whether it loads shows in the first of them."""
    allow_threads: tuple[str, ...] = ()
    """Names of threads that may be alive in the zygote when it forks, beside those that the app names. A fork copies
    one thread alone, and a lock that another one holds at that moment stays locked in each session."""

    def __post_init__(self) -> None:
        self._check_threads()
        self._check_counts()
        self._check_times()
        self._check_memory()
        if self.start_method not in ("zygote", "spawn"):
            raise OptionError(f"start_method is {self.start_method!r}; it can be 'zygote' or 'spawn'")

    @classmethod
    def from_keywords(cls, keywords: dict[str, Any]) -> PoolOptions:
        """Build options from keywords; an unknown one is named together with the nearest right one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in keywords:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are: {', '.join(known)}"
                raise OptionError(f"unknown pool option {name!r}{hint}")
        return cls(**keywords)

    @property
    def idle_ceiling(self) -> int:
        """The largest idle target, with the default filled in."""
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
        for name in (one.name for one in dataclasses.fields(self)):
            if not name.endswith(("_timeout", "_ttl")):
                continue
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            checked_seconds(name, value)

    def _check_memory(self) -> None:
        for name in ("memory_warn_mb", "memory_limit_mb"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < 10**9):
                raise OptionError(f"{name} is {value!r}; it must be a number of MiB above 0, or None")


def checked_seconds(name: str, value: object) -> float:
    """A number of seconds that a deadline can be made of (NaN, which nothing exceeds, cannot)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 10**9:
        raise OptionError(f"{name} is {value!r}; it must be a number of seconds above 0")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
