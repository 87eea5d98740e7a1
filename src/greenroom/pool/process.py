"""One supervised process: its state, its channels, its deadlines, and the report of its end."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from ..errors import AppLoadError
from ..log_fields import log_fields
from ..report import ExitReport
from ..system import proc, stackdump
from ..system.cgroup import MemoryCgroups
from ..system.heartbeat import Beats
from ..texts import clean, cut_end
from ..wire import messages as m
from . import output
from .contracts import Launcher, ProcessOwner, Services
from .deadline import Deadline
from .exits import Decision, ExitStatus
from .handle import Handle
from .launch import Launch
from .record import Record
from .stalls import FULL_DUMP, DumpTime, Patience, Stall
from .states import Event, IllegalTransition, State, next_state
from .watch import MemoryWatch, StallWatch
from .wires import Wires

__all__ = ["Process"]

_logger = logging.getLogger("greenroom")

FORK_TIMEOUT = 5.0
"""Seconds for the zygote to answer a request for a fork,"""
STARVED_FORK_TIMEOUT = 30.0
"""and for one that answers others meanwhile, or is starved of CPU."""
REAP_TIMEOUT = 8.0
"""Seconds from the death until the status is known and everything that the process left behind is gone."""
MARGIN = 1.0
"""Seconds that a child has, beyond its own deadline, to report that it missed it."""
MOST_DROPS_PER_SECOND = 1_000_000
"""More log records than a Python process can make in a second: its own count of drops is believed up to this."""
_ORDERS = ("cancelled", "drained", "job_timeout")
"""Reasons for which a running job is told to end."""
_LONGEST_COMPLAINT = 1000
"""Characters of what a process did against the protocol: this can quote 1 MiB, and a thousand reports are kept."""


class Process:
    """A child from the request for its fork to its report.

    Raises ``OSError`` when there are no fds left for it.
    """

    def __init__(self, process_id: str, launcher: Launcher, services: Services, owner: ProcessOwner) -> None:
        self.id = process_id
        self.launcher = launcher
        self.generation = launcher.generation
        self.state = State.REQUESTED
        self.pid: int | None = None
        self.launch: Launch | None = None
        self.acknowledged = False
        self.idle_since = 0.0
        self.is_adopted = False
        self.was_abandoned = False
        self.fork_seconds = self.prewarm_seconds = self.refill_seconds = 0.0
        self._services = services
        self._options = launcher.options
        self._clock = services.clock
        self._owner = owner
        self._forked_at = 0.0
        self._heard: set[type[m.Message]] = set()
        self.is_distrusted = False
        """It has broken the protocol: nothing that it did not say can be concluded from."""
        self._wires = Wires(services.transit, self._on_message, self._on_nonsense, self._on_wait)
        self._handle: Handle | None = None
        self._dump_fd: int | None = None
        self._memory_watch: MemoryWatch | None = None
        self._watches: list[StallWatch | MemoryWatch] = []
        self._record = Record(requested_at=time.monotonic())
        self._patience = Patience(FORK_TIMEOUT / 2, STARVED_FORK_TIMEOUT)
        self._deadline = Deadline(services.clock)
        """Of the present state: one at a time."""
        self._is_drained = False
        """A drain has asked it to end, or would have: its deadline is not held any more."""
        self._deadline.set(FORK_TIMEOUT / 2, self._look_after_fork)

    def __repr__(self) -> str:
        return f"<{self.label} {self.state.value}>"

    @property
    def label(self) -> str:
        job = f" (job {self.launch.job_id})" if self.launch is not None else ""
        return f"process {self.id} pid {self.pid}{job}"

    @property
    def ids(self) -> dict[str, object]:
        """What log lines about it carry."""
        ids: dict[str, object] = {
            "process_id": self.id,
            "job_pid": self.pid,
            "job_id": None,
            "generation": self.generation,
        }
        if self.launch is None:
            return ids
        return ids | {"job_id": self.launch.job_id, "labels": self.launch.labels or None}

    @property
    def live_pid(self) -> int:
        assert self.pid is not None
        return self.pid

    @property
    def is_idle(self) -> bool:
        return self.state is State.IDLE

    def beats(self) -> Beats:
        return self._wires.beats()

    def tell_of_signal(self, now: float) -> None:
        self._wires.tell_of_signal(now)

    # --- the fork --------------------------------------------------------------------------------

    @property
    def fork_fds(self) -> tuple[int, ...]:
        """The ends that go to the child, in the order of the wire."""
        return self._wires.child_ends

    def fork_sent(self) -> None:
        """The fork request is on its way, and the child's ends with it."""
        self._wires.close_child_ends()

    def _look_after_fork(self) -> None:
        """The zygote is late: it hangs, or has much to do, or the machine has."""
        sample = self.launcher.sample()
        if sample is not None and self._patience.ends_with(sample):
            self._owner.fork_overdue(self)
            return
        if self._patience.is_starved:
            _logger.warning("the zygote is starved of CPU, and has not forked %s yet; it is left alone", self.label)
        self._deadline.set(FORK_TIMEOUT / 2, self._look_after_fork)

    def fork_answered(self, pid: int, pidfd: int) -> None:
        """The process exists. Takes the pidfd."""
        self._step(Event.FORK_ANSWERED)  # first: a second answer must not take the place of the true one
        self.pid = pid
        self.fork_seconds = time.monotonic() - self._record.requested_at
        self._forked_at = self._clock.now()
        self._handle = Handle(pid, pidfd, self._clock, self.found_dead)
        self._wires.open(self._emit, self._services.log_budget)
        if self.state is State.KILLING:
            self._handle.kill()
            return
        self._enclose(pid)
        self._watch_memory()
        self._bound_prewarm()

    def _watch_memory(self) -> None:
        if self._memory_watch is not None:
            self._memory_watch.stop()
            self._watches.remove(self._memory_watch)
        self._memory_watch = MemoryWatch(self, self._options, self._clock)
        self._watches.append(self._memory_watch)

    def _bound_prewarm(self) -> None:
        timeout = self._options.prewarm_timeout
        detail = f"it did not become idle within prewarm_timeout ({timeout:g} s)"
        left = max(timeout - (self._clock.now() - self._forked_at), 0.0)
        self._deadline.set(left, self.kill, Decision("prewarm_timeout", detail))

    def _enclose(self, pid: int) -> None:
        """Have the kernel bound its memory, too, where it can."""
        limit, cgroups = self._options.memory_limit_mb, self._cgroups()
        if limit is not None and cgroups is not None:
            try:
                cgroups.enclose(self.id, pid, limit)
            except OSError as error:
                _logger.warning("%s has no memory cgroup (%s); its memory is watched all the same", self.label, error)

    def _cgroups(self) -> MemoryCgroups | None:
        return None if self._options.memory_limit_mb is None else self._services.find_cgroups()

    def fork_failed(self, cause: str) -> None:
        """There will be no process."""
        if self._record.decision is None:
            self._record.state_at_end = self.state
            self._record.decision = Decision("prewarm_failed", f"it could not be forked: {cause}")
        self._step(Event.FORK_FAILED)
        self._finish()

    def configure(self, configuration: m.Configure) -> None:
        """Tell a spawned process what a forked one has inherited. It loads the app itself, and tells of it."""
        self._wires.send(configuration)

    # --- the job ---------------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """Ask the kernel, now."""
        return self._handle is not None and self._handle.is_alive()

    def found_unfit(self) -> None:
        """It is idle, and not alive. Its death is told by the pidfd; that it is stopped, perhaps by nobody."""
        with suppress(OSError):  # gone by now
            if proc.stat(self.live_pid).state in ("T", "t"):
                self.stopped(signal.SIGSTOP)

    def reserve(self, launch: Launch, timeout: float) -> None:
        """Keep it for a job that is offered; it is idle again if the order does not come in ``timeout`` seconds."""
        self._take(launch, Event.RESERVE)
        self._deadline.set(timeout, self._owner.reservation_overdue, self)

    def ask(self, launch: Launch, timeout: float) -> None:
        """Have the app's request function answer within ``timeout`` seconds; the answer goes to the owner."""
        self._heard.discard(m.Answer)
        self._wires.send(m.Ask(launch.job_id, launch.source), launch.metadata)
        detail = f"the app's request function did not answer within request_timeout ({timeout:g} s)"
        self._deadline.set(timeout, self.kill, Decision("request_timeout", detail))

    def release(self) -> None:
        """The job it was reserved for does not come."""
        self._take(None, Event.RELEASE)
        self._deadline.clear()
        self._owner.released(self)

    def claim(self, launch: Launch, timeout: float) -> None:
        """Hand it the one job; it has ``timeout`` seconds to acknowledge that."""
        self._take(launch, Event.CLAIM)
        self._wires.send(m.Start(job_id=launch.job_id), launch.metadata)
        if self._memory_watch is not None:
            self._memory_watch.hurry()
        detail = f"it did not acknowledge the job within {timeout:.3g} s"
        self._deadline.set(timeout, self.kill, Decision("start_timeout", detail))

    def _take(self, launch: Launch | None, event: Event) -> None:
        next_state(self.state, event)  # or it has a job, and must not be given another
        self.launch = launch  # before it changes, so that whoever is told of the change is told whose it is
        self._step(event)

    # --- the end ---------------------------------------------------------------------------------

    def kill(self, decision: Decision, *, dump: DumpTime | None = FULL_DUMP) -> None:
        """Kill the process, after it has written its stacks. The first reason stands.

        A process that was asked to end is killed without more time for that. With ``dump=None`` no stacks are written.
        """
        is_awaited = self.state is State.KILLING and (dump is None or not self._record.signal_sent)
        if self._decide(decision) or is_awaited:
            self._end_now(dump)

    def stop(self, decision: Decision) -> None:
        """Ask it to end: the job by its shutdown, an idle process by exiting. Who does not is killed.

        A process between two states is killed at once, so that no job starts in it.
        """
        before = self.state
        if decision.reason == "drained":
            self._is_drained = True
            self._deadline.go_on()
        is_left_alone = before is State.ENDING and decision.spares_own_end
        if before in (State.DRAINING, State.KILLING) or is_left_alone:
            return  # it is about to end, and has a deadline for that
        if before not in (State.IDLE, State.RUNNING, State.ENDING):
            self.kill(decision, dump=None)
            return
        if not self._decide(decision):
            return
        if before is State.IDLE:
            self._wires.send(m.Retire())
            self._deadline.set(self._options.cleanup_timeout, self._escalate)
        else:
            self._wires.send(m.Shutdown(self._told(decision), not decision.spares_own_end))
            self._deadline.set(self._options.shutdown_timeout, self._escalate)

    def abandon(self, cause: str) -> None:
        """The zygote was lost before it answered: if it had forked, the cut lifeline ends the child."""
        self.was_abandoned = True
        self._wires.cut_lifeline()
        self.fork_failed(cause)

    def disown(self, cause: str) -> None:
        """It exists, but cannot be supervised: have the kernel end it, and count it as not forked."""
        self._wires.cut_lifeline()
        self.fork_failed(cause)

    @property
    def is_doomed(self) -> bool:
        """Its end was decided here, so the cause is known before its status is."""
        return self._record.decision is not None

    @property
    def fate(self) -> str:
        """What is known of its end before its report."""
        return self._record.decision.detail if self._record.decision is not None else f"{self.label} died"

    @property
    def has_missed_prewarm(self) -> bool:
        return self._record.decision is not None and self._record.decision.reason == "prewarm_timeout"

    @property
    def is_recalled(self) -> bool:
        """It ends because its job is not wanted any more."""
        return self._record.decision is not None and self._record.decision.reason in ("cancelled", "drained")

    def _told(self, decision: Decision) -> str:
        return decision.detail if decision.reason == "cancelled" else decision.reason

    def _decide(self, decision: Decision) -> bool:
        if self._record.decision is not None or self.state in (State.EXITED, State.REAPED):
            return False
        self._record.decision = decision
        self._record.state_at_end = self.state
        self._step(Event.KILL)
        return True

    def _escalate(self) -> None:
        """It was asked to end, and did not."""
        self._end_now(FULL_DUMP)

    def _end_now(self, dump: DumpTime | None) -> None:
        self._record.signal_sent = True
        if self._handle is None:
            self._wires.cut_lifeline()  # not forked yet: it is killed when it is, for which there is a deadline
            return
        self._deadline.clear()
        if self._dump_fd is not None and dump is not None:
            self._handle.dump_and_kill(self._dump_fd, dump, self._on_dump)
        else:
            self._handle.kill()

    def _on_dump(self, stacks: str) -> None:
        self._record.stack_dump = stacks or None

    # --- messages of the child -------------------------------------------------------------------

    def _on_message(self, message: m.Message, body: bytes) -> None:
        kind = type(message)
        try:
            self._hear(kind)
            _HANDLERS[kind](self, message, body)
        except IllegalTransition as error:
            self._on_nonsense(str(error))

    def _hear(self, kind: type[m.Message]) -> None:
        """Let each kind of message be said once: where its order does not matter any more, it could be a flood."""
        if kind in self._heard:
            raise IllegalTransition(f"it sent {kind.__name__} again")
        self._heard.add(kind)

    def _on_hello(self, message: m.Hello, body: bytes) -> None:
        self._step(Event.HELLO)
        self._dump_fd = message.dump_fd
        if message.app is not None:
            self._has_loaded(message.app)

    def _has_loaded(self, facts: m.AppFacts) -> None:
        """A spawned process tells of the app: from here on what the app sets holds."""
        try:
            self.launcher.learn(facts)
        except AppLoadError as error:
            self.kill(Decision("prewarm_failed", str(error)), dump=None)
            return
        before, self._options = self._options, self.launcher.options
        if self._options != before and self.state is State.WARMING:
            if self._options.memory_limit_mb != before.memory_limit_mb:
                self._enclose(self.live_pid)
            self._watch_memory()
            self._bound_prewarm()

    def _on_warm(self, message: m.Warm, body: bytes) -> None:
        self._step(Event.WARM)
        self.prewarm_seconds = message.prewarm_seconds
        if self.state is State.IDLE:
            self._deadline.clear()
            self.idle_since = self._clock.now()
            self.refill_seconds = time.monotonic() - self._record.requested_at
            self._owner.became_idle(self)

    def _on_prewarm_failed(self, message: m.PrewarmFailed, body: bytes) -> None:
        before = self.state
        next_state(before, Event.PREWARM_FAILED)  # or it is nonsense, and must not stand as the cause of its end
        self._record.error = message.error
        if self._record.decision is None:
            self._record.state_at_end = before
            self._record.decision = Decision("prewarm_failed", f"prewarm raised {message.error}")
        self._step(Event.PREWARM_FAILED)
        self._deadline.set(self._options.cleanup_timeout, self._escalate)

    def _on_answer(self, message: m.Answer, body: bytes) -> None:
        self._step(Event.ANSWERED)
        if self.state is State.RESERVED:
            if self.launch is None or not self.launch.is_being_asked or message.job_id != self.launch.job_id:
                raise IllegalTransition(f"it answered for a job {message.job_id!r}, which nobody had asked it about")
            self._deadline.set(self._options.reservation_timeout, self._owner.reservation_overdue, self)
            # The child cuts it, but a child can send anything, and who is turned down is remembered.
            reason = cut_end(clean(message.reason), m.MAX_REASON + 64)
            self._owner.answered(self, replace(message, reason=reason), body)

    def _on_started(self, message: m.Started, body: bytes) -> None:
        self._step(Event.STARTED)
        if self.launch is not None and message.job_id != self.launch.job_id:
            raise IllegalTransition(f"it acknowledged a job {message.job_id!r} that it was not given")
        self.acknowledged = True
        if self.state is State.RUNNING:
            self._watch_job()
        self._owner.started(self)

    def _watch_job(self) -> None:
        options = self._options
        if options.stall_timeout is not None:
            self._watches.append(StallWatch(self, options.stall_timeout, self._clock, self._on_stall))
        if options.job_timeout is None:
            self._deadline.clear()
            return
        detail = f"it ran longer than job_timeout ({options.job_timeout:g} s)"
        self._deadline.set(options.job_timeout, self.stop, Decision("job_timeout", detail))

    def _on_stall(self, stall: Stall) -> None:
        self._owner.stalled(self, stall)

    def _on_ending(self, message: m.Ending, body: bytes) -> None:
        self._step(Event.ENDING)
        if self._record.decision is not None and self._record.decision.spares_own_end:
            self._spare()
        if self.state is State.ENDING:
            # By what the app has told before it had a job: what a job claims bounds nothing.
            facts = self.launcher.facts
            timeout = (facts.end_timeout if facts is not None else 0.0) + self._options.shutdown_timeout
            detail = f"it had begun to end by itself, and its callbacks did not come within {timeout:g} s"
            self._deadline.set(timeout + MARGIN, self.kill, Decision("shutdown_timeout", detail))

    def _spare(self) -> None:
        """Take back the order to end: the job had begun to end before it came."""
        record = self._record
        is_order = record.decision is not None and record.decision.reason in _ORDERS
        was_at_work = record.state_at_end in (State.RUNNING, State.ENDING)
        if self.state is State.KILLING and is_order and was_at_work and not record.signal_sent:
            record.decision = None
            self._step(Event.SPARE)

    def _on_ended(self, message: m.Ended, body: bytes) -> None:
        if message.how not in ("completed", "raised", "exited", "cancelled"):
            raise IllegalTransition(f"a job cannot end by {message.how!r}")
        next_state(self.state, Event.ENDED)  # or it is nonsense, and voids nothing
        if not message.told:
            self._spare()
        self._step(Event.ENDED)
        self._record.job_ended(message, body)
        self._bound_the_end(self._options.shutdown_timeout + MARGIN, "its shutdown callbacks did not end")

    def _on_cleaning_up(self, message: m.CleaningUp, body: bytes) -> None:
        self._step(Event.CLEANING_UP)
        if message.stacks is not None:
            self._record.stack_dump = clean(message.stacks)[: stackdump.MAX_BYTES]
        self._record.cut = clean(cut_end(message.cut, _LONGEST_COMPLAINT))
        if message.overrun:
            # It says so itself, and goes on to clean up and exit.
            complaint = "its shutdown callbacks did not end"
            if not self._decide(Decision("shutdown_timeout", self._overdue(complaint))):
                self._record.cut = "; ".join(filter(None, [self._record.cut, f"{complaint} in time"]))
        complaint = "its clean-up did not end"
        self._bound_the_end(self._options.cleanup_timeout, complaint, job_is_over=not message.overrun)

    def _bound_the_end(self, timeout: float, complaint: str, *, job_is_over: bool = False) -> None:
        if self.state is State.DRAINING:
            decision = Decision("shutdown_timeout", self._overdue(complaint), job_is_over=job_is_over)
            self._deadline.set(timeout, self.kill, decision)
        elif self.state is State.KILLING and not self._record.signal_sent:
            self._deadline.set(timeout, self._escalate)

    def _overdue(self, complaint: str) -> str:
        options = self._options
        return (
            f"{complaint} in time (shutdown_timeout {options.shutdown_timeout:g} s, "
            f"cleanup_timeout {options.cleanup_timeout:g} s)"
        )

    def _on_wait(self, waits: bool) -> None:
        """Hold the deadline while a result waits for the pool's memory, which is not the job's fault.

        Not in a drain: a stop of the worker has a bound.
        """
        if waits and self.acknowledged and not self._is_drained:
            self._deadline.hold()
        else:
            self._deadline.go_on()

    def _on_nonsense(self, complaint: str) -> None:
        if self.is_distrusted:
            return  # it is killed for the first; what it had sent before it died still comes
        self.is_distrusted = True
        complaint = cut_end(complaint, _LONGEST_COMPLAINT)
        extra = log_fields("protocol_error", **self.ids, cause=complaint)
        _logger.error("%s broke the protocol and is killed: %s", self.label, complaint, extra=extra)
        self.kill(Decision("protocol_error", f"it broke the protocol: {complaint}"), dump=None)

    # --- its death -------------------------------------------------------------------------------

    def stopped(self, signum: int) -> None:
        """The zygote saw it stopped. Warm or starting, it is of no use; at work it may be continued."""
        if self.state in (State.IDLE, State.RESERVED, State.CLAIMED):
            detail = f"it was stopped by signal {signum} before its job had started"
            self.kill(Decision("stalled", detail), dump=None)
        elif self.state is State.KILLING and self._record.state_at_end is State.IDLE:
            self._end_now(None)  # it was asked to exit, and cannot

    def exited(self, status: ExitStatus) -> None:
        """The zygote saw it dead."""
        self._record.status = status
        self.found_dead()

    def reaped(self, usage: m.Reaped) -> None:
        """The zygote has buried it, and all that it had left behind."""
        self._record.usage = usage
        self._finish_if_known()

    def adopt(self) -> None:
        """Its zygote is lost: this process is now its parent, and reads its status itself."""
        self.is_adopted = True
        if self.state is State.EXITED:
            self._read_status()

    def found_dead(self) -> None:
        """It is dead: take leave of it in this same event."""
        if self.state in (State.EXITED, State.REAPED):
            return
        if self._record.decision is None:
            self._record.state_at_end = self.state
        assert self._handle is not None
        self._handle.has_died()
        self._stop_watches()
        self._step(Event.DEATH)
        self._wires.finish()
        self._record.has_died()
        self._deadline.set(REAP_TIMEOUT, self._owner.reap_overdue, self)
        self._owner.died(self)
        if self.is_adopted:
            self._read_status()
        else:
            self._finish_if_known()

    def _stop_watches(self) -> None:
        for watch in self._watches:
            watch.stop()
        self._watches.clear()
        self._memory_watch = None

    def _read_status(self) -> None:
        assert self._handle is not None
        try:
            burial = self._handle.bury()
        except ChildProcessError:  # somebody else has reaped it: the lost zygote, in its last moment
            self._finish()
            return
        if burial is None:
            return
        self._record.status = burial.status
        usage = m.Reaped(self.id, burial.cpu_seconds, burial.peak_memory_mb, 0)
        self._services.strays.sweep(lambda killed: self.reaped(replace(usage, descendants_killed=killed)))

    def give_up(self) -> None:
        """Report its end without what cannot be found out."""
        if self.state is State.EXITED:
            self._finish()

    def _finish_if_known(self) -> None:
        if self._record.is_complete:
            self._finish()

    def _finish(self) -> None:
        """Write the report, and let go of everything.

        What has ended is freed by its last reference, not by the garbage collector: the result of a job can have
        64 MiB, and a full collection may be an hour away. So nothing here refers to anything that refers back.
        """
        if self._handle is not None:
            self._step(Event.REAP)
        self._deadline.clear()
        report = self._report()
        self._wires.close()
        if self._handle is not None:
            self._handle.close()
        self._owner.ended(self, report)
        self._record.result = None  # it is the report's
        self.launch = None

    def _look_into_cgroup(self) -> None:
        """A SIGKILL that was not ours may have been the kernel's, for the limit that we gave it."""
        cgroups = self._cgroups()
        if cgroups is None:
            return
        if self._record.decision is None and cgroups.limit_was_hit(self.id):
            self._record.decision = Decision("memory_limit", "the kernel ended it at the memory limit of its cgroup")
            self._record.signal_sent = True  # on our behalf
        cgroups.remove(self.id)

    def _report(self) -> ExitReport:
        record = self._record
        self._look_into_cgroup()
        if record.status == ExitStatus(None, signal.SIGKILL) and not record.signal_sent:
            record.oom_killed = self._services.oom.has_struck(self.live_pid)
        record.dropped = self._claimed_drops() + self._wires.dropped
        return record.report(self.id, self.pid, self.generation, self.launch)

    def _claimed_drops(self) -> int:
        """Return the log records that the child says it dropped, as far as it can have dropped so many."""
        seconds = time.monotonic() - self._record.requested_at
        return min(self.beats().dropped, int(seconds * MOST_DROPS_PER_SECOND))

    # --- odds and ends ---------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        before = self.state
        self.state = next_state(before, event)
        if self.state is not before:
            self._owner.changed(self, before)

    def _emit(self, line: output.OutputLine | output.Loss) -> None:
        output.emit(line, self.ids)


_HANDLERS: dict[type, Callable[..., None]] = {
    m.Hello: Process._on_hello,
    m.Warm: Process._on_warm,
    m.PrewarmFailed: Process._on_prewarm_failed,
    m.Answer: Process._on_answer,
    m.Started: Process._on_started,
    m.Ending: Process._on_ending,
    m.Ended: Process._on_ended,
    m.CleaningUp: Process._on_cleaning_up,
}
