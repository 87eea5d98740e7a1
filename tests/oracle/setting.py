"""What a scenario is given: a stage, a recorder, and pools that are recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from faults.stage import Stage, Visit
from oracle.recording import Recorder
from support import eventually

from greenroom import Job, JobHandle, ProcessPool

__all__ = ["SCENARIOS", "Scenario", "Setting", "scenario"]

# A fixed idle target, and no surplus process that goes when it likes.
_OPTIONS = {"num_idle_processes": 1, "idle_ttl": 3600.0, "start_timeout": 30.0, "launch_timeout": 60.0}
_OPTIONS |= {"prewarm_timeout": 30.0, "shutdown_timeout": 30.0, "cleanup_timeout": 30.0, "reservation_timeout": 60.0}


class Setting:
    def __init__(self, stage: Stage, recorder: Recorder) -> None:
        self.stage = stage
        self.recorder = recorder
        self.flag = stage.directory / "flag"
        """What the first process to misbehave takes away: see ``first()`` in apps."""
        self.handles: dict[str, JobHandle] = {}
        self._visits: dict[str, Visit] = {}

    def app(self, source: str) -> str:
        """Write an app. Its ``first()`` is true in one process: the first to call it after a :meth:`raise_flag`."""
        return self.stage.app(f"FLAG = {str(self.flag)!r}\n{_FIRST}\n{source}")

    def raise_flag(self) -> None:
        self.flag.touch()

    def pool(self, app: str, **options: Any) -> ProcessPool:
        """Make a pool that is recorded, of an idle target that does not rise by itself."""
        options = _OPTIONS | options
        options.setdefault("max_idle_processes", options["num_idle_processes"])
        pool = ProcessPool(app, **options)
        pool.subscribe(self.recorder)
        return pool

    def tell(self, name: str, what: object) -> None:
        self.recorder.tell(name, what)

    async def told(self, name: str, answer: Awaitable[object]) -> None:
        """Record what a caller is told: what it gets, or the error."""
        try:
            got = await answer
        except Exception as error:
            self.tell(name, error)
        else:
            self.tell(name, got if got is None or isinstance(got, (str, int)) else type(got).__name__)

    async def launch(self, pool: ProcessPool, name: str, metadata: Any = "done") -> JobHandle:
        handle = self.handles[name] = await pool.launch(Job(name, metadata))
        return handle

    async def stay(self, pool: ProcessPool, name: str) -> Visit:
        """Launch a job that stays until it is ordered to leave; returns it."""
        await self.launch(pool, name, "stay")
        return await self.visit("job", name)

    async def visit(self, phase: str, name: str) -> Visit:
        """Wait for the job of this name to come on stage."""
        while f"{phase} {name}" not in self._visits:
            visit = await self.stage.next(phase)
            self._visits[f"{phase} {visit.name.replace('_', ' ')}"] = visit
        return self._visits[f"{phase} {name}"]

    async def at_rest(self, pool: ProcessPool, idle: int) -> None:
        """Wait until there are so many idle processes, and nothing else."""

        def is_at_rest() -> bool:
            stats, processes = pool.stats(), [process for process in pool.processes if process.state != "resident"]
            return stats.idle == idle == len(processes) and not stats.jobs

        await eventually(is_at_rest, f"{idle} idle processes and nothing else")


_FIRST = """
def first():
    try:
        os.unlink(FLAG)
    except FileNotFoundError:
        return False
    return True
"""

Function = Callable[[Setting], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    function: Function
    lives: bool
    """Whether the lives of processes are compared, and not those of jobs alone."""
    generations: bool
    """Whether the numbers of generations are compared."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(*, lives: bool = True, generations: bool = False) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        SCENARIOS[function.__name__] = Scenario(function, lives, generations)
        return function

    return register
