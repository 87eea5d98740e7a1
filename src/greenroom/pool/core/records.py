"""Records of processes, jobs, questions, launchers and generations, and of the pool."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ...app_facts import AppFacts
from ...errors import AppLoadError, ErrorInfo
from ...exit_report import ExitReport
from ...job_labels import Labels
from ...options import PoolOptions
from .breaker import Breaker
from .deadlines import Deadlines, Timed
from .effective_options import EffectiveOptions
from .exit_verdict import Decision
from .memory import SessionCost
from .sizing import Crowd, Demand
from .stalls import Patience
from .states import AskState, GenerationState, JobQueueState, JobState, LauncherState, ProcessState
from .vocabulary import Effect, Ended, Reaped, Script

__all__ = ["Ask", "Generation", "Job", "JobQueue", "Launcher", "Pool", "Process", "Timer"]


@dataclass(slots=True, eq=False)
class Process(Timed):
    """Record of a process, from the request for its fork to its report.

    Times are seconds on the pool's clock. Those with ``_wall`` in the name are seconds since the epoch.
    """

    id: str
    launcher: Launcher
    generation: Generation
    options: PoolOptions
    requested_at: float
    requested_wall: float
    patience: Patience
    """Patience with the launcher, until it has answered the fork request."""
    facts: AppFacts | None
    """Facts about the app in this process. A spawned process may have loaded other code than its generation."""
    is_resident: bool = False
    """True if the process answers questions, such as those to the request hook, and never gets a job."""
    state: ProcessState = ProcessState.REQUESTED
    pid: int | None = None
    job: Job | None = None
    forked_at: float = 0.0
    fork_seconds: float = 0.0
    idle_since: float = 0.0
    heard: set[type] = field(default_factory=set)
    """Kinds of messages that the process has sent."""
    is_distrusted: bool = False
    """True if the process has broken the protocol. A missing message then proves nothing."""
    is_abandoned: bool = False
    """True if the launcher was lost before it answered the fork request."""
    was_put_to_work: bool = False
    """True if a question or news was sent to this resident process."""
    start_was_sent: bool = False
    start_seconds: float = 0.0
    """Seconds that the process has to acknowledge its job."""
    is_counted: bool = False
    """True if the process is counted as one that did not become warm."""
    is_drained: bool = False
    """True once a drain has reached the process, whose deadline is then not held any more."""

    # Facts about the end of the process.
    decision: Decision | None = None
    state_at_end: ProcessState = ProcessState.REQUESTED
    """State before the death, or before the decision to end the process."""
    was_asked: bool = False
    """True if the process was asked to exit, or its job to end."""
    signal_sent: bool = False
    """True if SIGKILL was sent, or will be sent once the stacks are written."""
    dump_was_asked: bool = False
    """True if the process was sent the signal to write its stacks."""
    is_overweight: bool = False
    """True if the process exceeded its memory limit, and may use more memory until it is dead."""
    is_overcrowded: bool = False
    """True if the process exceeded its limit of processes, and may start more until all are dead."""
    has_died: bool = False
    ended: Ended | None = None
    ended_wall: float | None = None
    error: ErrorInfo | None = None
    stack_dump: str | None = None
    cut: str = ""
    """Steps of the job's end that were cut off, for the report."""
    remark: str = ""
    """Unusual fact about the end, which the report has beside the verdict."""
    reaped: Reaped | None = None

    @property
    def label(self) -> str:
        """Name of the process in log lines."""
        job = f" (job {self.job.id})" if self.job is not None else ""
        return f"process {self.id} pid {self.pid}{job}"

    @property
    def ids(self) -> dict[str, object]:
        """Fields of all log lines about the process."""
        ids: dict[str, object] = {
            "process_id": self.id,
            "job_pid": self.pid,
            "job_id": None,
            "generation": self.generation.number,
        }
        if self.job is None:
            return ids
        return ids | {"job_id": self.job.id, "labels": self.job.labels or None}

    @property
    def fate(self) -> str:
        """Cause of the end in a sentence, before the report exists."""
        return self.decision.detail if self.decision is not None else f"{self.label} died"

    @property
    def is_recalled(self) -> bool:
        """True if the process ends because it is not wanted any more."""
        return self.decision is not None and self.decision.reason in ("cancelled", "drained")


@dataclass(slots=True, eq=False)
class Job(Timed):
    """Record of an accepted job, or of a reservation."""

    number: int
    """Number by which the shell finds the caller of the job."""
    id: str
    metadata: bytes
    timeout: float
    source: str
    labels: Labels
    queued_at: float
    requested_wall: float
    expires_at: float
    """Time by which the job must start; otherwise it is given up."""
    state: JobState = JobState.NEW
    launch_type: Literal["warm", "cold"] = "cold"
    attempts: int = 0
    """Number of processes to which the job was sent."""
    process: Process | None = None
    pid: int | None = None
    waited: float = 0.0
    """Seconds until a process was reserved for the job."""
    claimed_wall: float | None = None
    started_wall: float | None = None
    ask: Ask | None = None
    cancelled: Decision | None = None
    cause: str = ""
    """Cause of the end of a reservation without a launch."""
    report: ExitReport | None = None


@dataclass(slots=True, eq=False)
class Ask(Timed):
    """Record of a question to the resident process. A question to the request hook is about a job."""

    number: int
    topic: str
    generation: Generation
    timeout: float
    """Seconds from the question until an answer is not awaited any more."""
    job: Job | None = None
    body: bytes = b""
    was_lost: bool = False
    """True if the process that had the question has ended."""
    state: AskState = AskState.PENDING


@dataclass(slots=True, eq=False)
class Launcher(Timed):
    """Record of a zygote or, if processes are spawned, of a spawner."""

    number: int
    generation: Generation
    script: Script
    """Treatment of the app's script before the load: run it, run it anew, or keep it as it is."""
    is_parent: bool
    """True if the launcher is the parent of its processes. A spawner is not."""
    state: LauncherState = LauncherState.WAITING
    pid: int | None = None
    loaded_at: float = 0.0
    error: AppLoadError | None = None
    """Cause of the failure to load the app."""
    remark: str = ""
    """Cause of the kill of the launcher, for the reports of its processes."""
    processes: dict[str, Process] = field(default_factory=dict)
    """Processes that the launcher was asked for and that have no report yet, by id."""


@dataclass(slots=True, eq=False)
class Generation(Timed):
    """Record of one version of the app's code, with its processes."""

    number: int
    options: PoolOptions
    request: int | None = None
    """Number of the request to reload that made the generation, if any."""
    state: GenerationState = GenerationState.LOADING
    launcher: Launcher | None = None
    """Launcher that forks, or will fork, the processes of the generation."""
    facts: AppFacts | None = None
    digest: str = ""
    began_at: float = 0.0
    import_seconds: float = 0.0
    preload_seconds: float = 0.0
    anonymous_mb: float = 0.0
    huge_mb: float = 0.0
    arrange_seconds: float = 0.0
    processes: dict[str, Process] = field(default_factory=dict)
    idle: dict[str, Process] = field(default_factory=dict)
    """Idle processes by id, in the order in which they became idle."""
    warming: dict[str, Process] = field(default_factory=dict)
    resident: Process | None = None
    """Process that answers questions, or will do so once it is warm."""
    resident_breaker: Breaker = field(default_factory=Breaker)
    """Counter of lost resident processes, which delays the next one."""
    asks: list[Ask] = field(default_factory=list)
    breaker: Breaker = field(default_factory=Breaker)
    last_failure: float = float("-inf")
    to_fork: int = 0
    """Number of processes that are still to be requested for the proof."""
    to_warm: int = 0
    """Number of processes that must still become warm for the proof."""
    trouble: str | None = None
    """Cause of a lasting lack of a launcher, if there is one."""


@dataclass(slots=True, eq=False)
class Timer(Timed):
    """Deadline of the pool itself, beside those of its records."""

    name: str


@dataclass(slots=True, eq=False)
class JobQueue(Timed):
    """Record of the pool's jobs, in the order of their arrival. The deadline of this record is that of a drain."""

    state: JobQueueState = JobQueueState.NEW
    jobs: dict[int, Job] = field(default_factory=dict)
    """Jobs and reservations that are not over, by number."""
    by_id: dict[str, Job] = field(default_factory=dict)
    waiting: deque[Job] = field(default_factory=deque)
    reloads: deque[int] = field(default_factory=deque)
    """Numbers of the requests to reload that wait for an earlier reload."""
    drain_timeout: float = 0.0


@dataclass(slots=True, eq=False)
class Pool:
    """Record of a whole pool. Only the core changes it."""

    effective: EffectiveOptions
    options: PoolOptions
    """Options that hold now, with the settings of the served app."""
    offset: float
    """Seconds to add to the pool's clock, so that the sum is wall time."""
    now: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    deadlines: Deadlines = field(default_factory=Deadlines)
    job_queue: JobQueue = field(default_factory=JobQueue)
    processes: dict[str, Process] = field(default_factory=dict)
    launchers: dict[int, Launcher] = field(default_factory=dict)
    generations: dict[int, Generation] = field(default_factory=dict)
    serving: Generation | None = None
    trial: Generation | None = None
    """Generation that is loaded and proven, to take the place of the serving one."""
    facts: AppFacts | None = None
    """Facts about the app that is served."""
    demand: Demand = field(default_factory=Demand)
    news: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """News for resident processes, by topic and key, oldest first."""
    crowd: Crowd = field(default_factory=Crowd)
    cost: SessionCost = field(default_factory=SessionCost)
    launcher_breaker: Breaker = field(default_factory=Breaker)
    launcher_restarts: int = 0
    processes_made: int = 0
    launchers_made: int = 0
    generations_made: int = 0
    refill: Timer = field(default_factory=lambda: Timer("refill"))
    """Timer before a claimed process is replaced. During this short delay, the start of the job has the CPUs."""
    housekeeping: Timer = field(default_factory=lambda: Timer("housekeeping"))
    retry: Timer = field(default_factory=lambda: Timer("retry"))
    """Timer before the next attempt to make a process, after failures."""
    is_unbalanced: bool = False
    """True if processes may be missing or surplus, or a launcher may be missing."""
    is_settled: bool = False
    is_empty: bool = True

    def emit(self, effect: Effect) -> None:
        """Append an effect. The shell performs effects in the order of these calls."""
        self.effects.append(effect)

    @property
    def wall(self) -> float:
        """Current wall time, in seconds since the epoch."""
        return self.now + self.offset
