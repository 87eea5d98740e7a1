"""How the parts of the pool see each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..options import PoolOptions
from ..report import ExitReport
from ..system.cgroup import MemoryCgroups
from ..wire.messages import Answer, AppFacts
from .budgets import Allowance
from .clock import AwakeClock
from .events import EventBus
from .oom import OomCounter
from .stalls import Sample, Stall
from .states import State
from .strays import StrayKiller
from .terms import Terms
from .transit import TransitMemory

if TYPE_CHECKING:
    from .process import Process

__all__ = ["Launcher", "ProcessOwner", "Services"]


@dataclass(slots=True)
class Services:
    """What all processes of a pool share."""

    terms: Terms
    options: PoolOptions
    """What holds, with what the served app sets."""
    clock: AwakeClock
    oom: OomCounter
    strays: StrayKiller
    log_budget: Allowance
    transit: TransitMemory
    events: EventBus
    find_cgroups: Callable[[], MemoryCgroups | None]
    """Where the kernel itself keeps ``memory_limit_mb``, if that has been delegated: asked once there is a limit."""


class ProcessOwner(Protocol):
    """What the pool is told. Each call is made at most once for a process, but ``changed``, ``stalled`` and
    those about reservations."""

    def changed(self, process: Process, before: State) -> None: ...
    def became_idle(self, process: Process) -> None: ...
    def answered(self, process: Process, answer: Answer, body: bytes) -> None: ...
    def released(self, process: Process) -> None:
        """What it was reserved for did not come; it is idle again."""

    def reservation_overdue(self, process: Process) -> None: ...
    def started(self, process: Process) -> None: ...
    def died(self, process: Process) -> None:
        """It is dead for certain, and all that it had sent was read."""

    def ended(self, process: Process, report: ExitReport) -> None: ...
    def fork_overdue(self, process: Process) -> None: ...
    def reap_overdue(self, process: Process) -> None: ...
    def stalled(self, process: Process, stall: Stall) -> None: ...


class Launcher(Protocol):
    """Makes processes, and is their parent unless it says otherwise: a zygote, or a spawner."""

    generation: int
    processes: dict[str, Process]

    @property
    def pids(self) -> set[int]: ...
    @property
    def facts(self) -> AppFacts | None: ...
    @property
    def options(self) -> PoolOptions:
        """What holds for its processes: they have this generation's code."""

    def learn(self, facts: AppFacts) -> None:
        """Hear of the app from one of its processes. Raises :class:`AppLoadError` if its settings cannot be kept."""

    def fork(self, process: Process) -> None: ...
    def sample(self) -> Sample | None:
        """How that which forks looks now; ``None`` if nothing stands between the request and the process."""

    def kill(self) -> None: ...
    def close(self) -> None: ...
