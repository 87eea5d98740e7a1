"""States and events of the pool's records, with the names that users see."""

from __future__ import annotations

from enum import Enum
from typing import Literal

__all__ = [
    "AskEvent",
    "AskState",
    "Bound",
    "GenerationEvent",
    "GenerationState",
    "JobEvent",
    "JobQueueState",
    "JobState",
    "LauncherEvent",
    "LauncherState",
    "ProcessEvent",
    "ProcessState",
    "PublicJobState",
]


class _Quick(Enum):
    """Enumeration whose members are quick keys of a dictionary. :class:`Enum` hashes the name at each look-up."""

    __hash__ = object.__hash__


class ProcessState(_Quick):
    """State of a process. The second value is the public name in the API, in events and in metrics."""

    REQUESTED = "requested", "requested"
    """The launcher was asked to fork the process."""
    FORKED = "forked", "forked"
    """The process exists."""
    WARMING = "warming", "warming"
    """The process has armed its lifeline and runs ``prewarm``."""
    IDLE = "idle", "idle"
    """The process waits for its one job."""
    RESERVED = "reserved", "reserved"
    """The process is reserved for a job."""
    CLAIMED = "claimed", "claimed"
    """A job was sent to the process."""
    RUNNING = "running", "running"
    """The process has acknowledged the job."""
    ENDING = "ending by itself", "draining"
    """The job has begun to end by itself, and has time of its own for that."""
    DRAINING = "draining", "draining"
    """The entrypoint has ended. The shutdown callbacks run."""
    CLEANING = "cleaning", "draining"
    """The callbacks are over. The process cleans up and exits."""
    RESIDENT = "resident", "resident"
    """The process answers questions, such as those to the request hook, and never gets a job."""
    UNFIT = "unfit", "idle"
    """The kernel reported the idle process as dead or dying. The death is awaited."""
    DOOMED = "doomed", "killing"
    """The process is not wanted any more, and its launcher has not answered yet. The lifeline is cut."""
    FAILING = "failing", "killing"
    """The prewarm has failed. The process exits by itself."""
    RETIRING = "retiring", "killing"
    """The process had no job, and was asked to exit."""
    STOPPING = "stopping", "killing"
    """The job was asked to end."""
    LEAVING = "leaving", "killing"
    """The job was asked to end, or its callbacks were cut off. The entrypoint has ended."""
    DUMPING = "dumping", "killing"
    """The process writes its stacks, and is killed after that."""
    SIGNALLED = "signalled", "killing"
    """SIGKILL was sent."""
    UNKILLED = "unkilled", "killing"
    """SIGKILL was sent twice. The process is not dead yet."""
    DEAD = "dead", "exited"
    """The process is dead. The launcher has not reported the exit status yet."""
    UNREPORTED = "unreported", "exited"
    """The process is dead, and its launcher is lost or overdue. The supervisor reads the exit status."""
    GONE = "gone", "reaped"
    """The report is written, and everything that was opened for the process is closed."""

    def __init__(self, text: str, public: str) -> None:
        self.text = text
        self.public = public


class ProcessEvent(_Quick):
    """Event in the life of a process, reported by the shell or decided by the pool."""

    FORKED = "forked"
    FORK_FAILED = "fork failed"
    HELLO = "hello"
    WARM = "warm"
    INSTALLED = "installed"
    """The process is warm, and is the resident process of its generation."""
    PREWARM_FAILED = "prewarm failed"
    RESERVE = "reserve"
    RELEASE = "release"
    CLAIM = "claim"
    STARTED = "started"
    ENDING = "ending"
    SPARED = "spared"
    """The job was asked to end, but had begun to end by itself before."""
    ENDED = "ended"
    SPARED_AT_END = "spared at end"
    """The job was asked to end, but its entrypoint had ended by itself before."""
    CLEANING_UP = "cleaning up"
    """The shutdown callbacks are over."""
    OVERRAN = "overran"
    """The shutdown callbacks were cut off."""
    STOP = "stop"
    """The process is not wanted any more. A job gets time to end."""
    KILL = "kill"
    """The process must end at once."""
    DUMP_AND_KILL = "dump and kill"
    """The process must write its stacks and then end at once."""
    OVERDUE = "overdue"
    """The deadline of its state has passed."""
    DUMPED = "dumped"
    STOPPED = "stopped"
    """A signal or a debugger has stopped the process."""
    UNFIT = "unfit"
    """The kernel reports the process as dead or dying."""
    ORPHANED = "orphaned"
    """The launcher of the process is lost."""
    DIED = "died"
    SAMPLED = "sampled"
    """The launcher, whose answer is late, was sampled."""
    TRACED = "traced"
    """A debugger holds back the exit status."""
    UNTRACED = "untraced"
    """No debugger holds back the exit status."""
    REAPED = "reaped"
    """The process is reaped. The exit status is known, or lost for good."""


class JobState(_Quick):
    """State of a job or reservation. The second value is :attr:`JobHandle.state`."""

    NEW = "new", "waiting"
    """The job is accepted by the event that is being handled."""
    WAITING = "waiting", "waiting"
    """The job waits for a process."""
    OFFERED = "offered", "waiting"
    """The reservation waits for its first process."""
    HELD = "held", "reserved"
    """A process is reserved for the job."""
    UNHELD = "unheld", "waiting"
    """The reservation is granted, and waits in the queue for a process: it was promised one, or its process is lost."""
    STARTING = "starting", "starting"
    """The job was sent to a process."""
    RECALLED = "recalled", "ending"
    """The job was cancelled after it had been sent to a process. An acknowledgement still counts as a start."""
    RUNNING = "running", "running"
    DRAINING = "draining", "draining"
    """The job has begun to end by itself, or its entrypoint has ended."""
    ENDING = "ending", "ending"
    """The process of the job is to end, or is dead. The report of the process is awaited."""
    UNSTARTED = "unstarted", "ending"
    """The process died before it acknowledged the job, and no other one is tried. The report will have the cause."""
    FAILED = "failed", "ending"
    """The job will not start, and the caller of the job is notified. The report of the process is awaited."""
    WITHDRAWN = "withdrawn", "ended"
    """The reservation has ended without a launch. There is no report."""
    ENDED = "ended", "ended"

    def __init__(self, text: str, public: PublicJobState) -> None:
        self.text = text
        self.public: PublicJobState = public


PublicJobState = Literal["waiting", "reserved", "starting", "running", "draining", "ending", "ended"]


class JobEvent(_Quick):
    """Event in the life of a job or reservation."""

    QUEUE = "queue"
    """No process is idle."""
    OFFER = "offer"
    """No process is idle for a reservation."""
    PROMISE = "promise"
    """No process is idle for a reservation. The reservation is granted, since a process is certain to be idle soon."""
    TAKE = "take"
    """A process is free for the job."""
    HOLD = "hold"
    """A process is free for a reservation."""
    LAUNCH = "launch"
    """The caller launches the reservation."""
    ANSWERED = "answered"
    """The app's request hook has accepted the job, or ``request_failure`` has."""
    OVERDUE = "overdue"
    CANCEL = "cancel"
    CANCEL_UNLESS_ENDING = "cancel unless ending"
    """The job is cancelled, unless it has begun to end by itself."""
    RELEASE = "release"
    """The reservation is released."""
    UNSENT = "unsent"
    """The process was found to be dead or dying before the job was sent."""
    LOST = "lost"
    """The process of the job is dead, or given up. A job that has not started may go to another process."""
    LOST_FOR_GOOD = "lost for good"
    """The process is lost, and no other one is tried. The cause is known."""
    LOST_UNEXPLAINED = "lost unexplained"
    """The process is lost, and no other one is tried. The report of the process will have the cause."""
    STARTED = "started"
    OWN_END = "own end"
    """The job has begun to end by itself, or its entrypoint has ended."""
    END = "end"
    """The pool ends the process of the job: it has asked the job or the process to end, or kills the process."""
    SPARED = "spared"
    """``END`` is void, since the job had begun to end by itself before. The process gets time for this end."""
    REPORTED = "reported"
    """The report of the process is written."""


class LauncherState(_Quick):
    """State of a zygote or, if processes are spawned, of a spawner."""

    WAITING = "waiting"
    """The launcher is started after a delay, which is 0 unless earlier launchers failed."""
    PREPARING = "preparing"
    """The app's script, if there is one, is prepared before the launcher starts."""
    STARTING = "starting"
    """The interpreter of the launcher is being started."""
    LOADING = "loading"
    """The launcher imports the app and runs ``preload``."""
    DUMPING = "dumping"
    """The launcher is overdue, and writes its stacks."""
    UP = "up"
    """The launcher can fork."""
    CLOSING = "closing"
    """The launcher was asked to exit."""
    KILLED_UP = "killed while it forked"
    """SIGKILL was sent to a launcher that was up. The loss is still to be reported."""
    KILLED = "killed"
    """SIGKILL was sent."""
    UNKILLED = "unkilled"
    """SIGKILL was sent twice. The launcher is not dead yet."""
    LOST = "lost"
    """The launcher is dead, or given up."""


class LauncherEvent(_Quick):
    """Event in the life of a launcher."""

    SPAWNED = "spawned"
    """The process of the launcher exists."""
    BEGAN = "began"
    """The interpreter runs, and will import the app next."""
    LOADED = "loaded"
    REFUSED = "refused"
    """The app does not load, or its settings are invalid."""
    OVERDUE = "overdue"
    DUMPED = "dumped"
    CLOSE = "close"
    KILL = "kill"
    LOST = "lost"


class GenerationState(_Quick):
    """State of one version of the app's code."""

    LOADING = "loading"
    """The launcher loads the code for the first time."""
    PROVING = "proving"
    """The first processes become warm, while the generation before serves."""
    SERVING = "serving"
    """Jobs start in processes of this generation."""
    RETIRED = "retired"
    """The generation gets no new jobs, and lives until its last process has ended."""
    GONE = "gone"


class GenerationEvent(_Quick):
    """Event in the life of a generation."""

    LOADED = "loaded"
    LOADED_TO_PROVE = "loaded to prove"
    PROVEN = "proven"
    FAILED = "failed"
    RETIRE = "retire"
    EMPTY = "empty"
    """The generation has neither a process nor a launcher."""


class AskState(_Quick):
    """State of a question to the resident process."""

    PENDING = "pending"
    """The resident process is not warm yet."""
    SENT = "sent"
    DONE = "done"


class AskEvent(_Quick):
    """Event in the life of a question."""

    SEND = "send"
    ANSWERED = "answered"
    LOST = "lost"
    """The resident process ends, or none will be there."""
    OVERDUE = "overdue"
    DROPPED = "dropped"
    """The reservation ends without a launch."""


class JobQueueState(_Quick):
    """State of the whole pool."""

    NEW = "new"
    OPEN = "open"
    DRAINING = "draining"
    CLOSING = "closing"
    CLOSED = "closed"


class Bound(_Quick):
    """Limit of the time in a state. The value names the option or the constant, or says why there is none."""

    KEEP = "the running deadline"
    NONE = "no deadline"
    FORK = "FORK_TIMEOUT"
    PREWARM = "prewarm_timeout"
    START = "start_timeout"
    JOB = "job_timeout"
    OWN_END = "end_timeout of the app, and shutdown_timeout"
    SHUTDOWN = "shutdown_timeout"
    CALLBACKS = "shutdown_timeout, and MARGIN to report a miss"
    CLEANUP = "cleanup_timeout"
    DUMP = "DUMP_TIMEOUT"
    KILL = "KILL_TIMEOUT"
    GIVE_UP = "GIVE_UP_TIMEOUT"
    REAP = "REAP_TIMEOUT"
    LAUNCH = "timeout of the launch or reservation"
    RESERVATION = "reservation_timeout"
    SCRIPT = "preload_timeout of the script, and a margin"
    PRELOAD = "preload_timeout"
    CLOSE = "CLOSE_TIMEOUT"
