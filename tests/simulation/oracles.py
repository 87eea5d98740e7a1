"""What always holds, whatever happens: judged from the events that went in and the effects that came out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenroom.app_facts import AppSetting
from greenroom.errors import AppLoadError, NoCapacity
from greenroom.exit_reasons import POSSIBLE_ENDS
from greenroom.pool import events as e
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.records import Generation
from greenroom.pool.core.stalls import Stall
from greenroom.pool.core.states import GenerationState, JobQueueState, LauncherState, ProcessState

from .plans import QUERIES

if TYPE_CHECKING:
    from .world import Process, World

__all__ = ["Caller", "Oracles", "Violation"]

NEVER = float("inf")
GRACE = 15.0 + 5.0 + 10.0 + 2 * 8.0 + 3.0
"""Seconds beyond a deadline until an answer: a dump, a kill, a second one, and twice the wait for a status."""
MOST_RESIDENTS = 30
"""Resident processes that are forked in a second, at the most: those that die at once are replaced ever later."""
STRICT_GRACE = 1.5
"""Seconds beyond a deadline in a world in which nothing withstands SIGKILL."""
_SLOW = frozenset(
    (
        "unkillable",
        "slow_kill",
        "dump_never",
        "dead_unseen",
        "status_late",
        "status_never",
        "traced",
        "waits",
        "pause",
        "launcher_lost",
        "launcher_hangs",
        "launcher_starved",
        "launcher_breaks",
        "launcher_doubles",
        "fork_hangs",
        "fork_late",
        "late_ticks",
    )
)
_BREACHES = ("nonsense", "double", "wrong")
_LAUNCHER_BREACHES = ("launcher_breaks", "launcher_doubles")
_HOWS = ("completed", "raised", "exited", "cancelled")
_KILLED = (LauncherState.KILLED_UP, LauncherState.KILLED, LauncherState.UNKILLED)
_BECOMING_WARM = frozenset(("requested", "forked", "warming"))
_TIMEOUTS = {
    "requested": "prewarm_failed",
    "forked": "prewarm_timeout",
    "warming": "prewarm_timeout",
    "idle": "stalled",
    "claimed": "start_timeout",
    "running": "job_timeout",
    "draining": "shutdown_timeout",
}
"""The cause of an end that the clock decides, by the public state."""


class Violation(Exception):
    """An oracle does not hold."""

    def __init__(self, oracle: str, text: str) -> None:
        super().__init__(f"{oracle}: {text}")
        self.oracle = oracle


class Caller:
    """A caller's request for a job, and how far it was answered."""

    __slots__ = (
        "answer_due",
        "ask_due",
        "cancelled",
        "entered",
        "expires",
        "granted",
        "has_started",
        "hold_due",
        "is_accepted",
        "is_asking",
        "is_launched",
        "is_reservation",
        "not_started",
        "number",
        "over",
        "over_due",
        "process",
        "starts",
    )

    def __init__(self, number: int, is_reservation: bool, expires: float, grace: float) -> None:
        self.number = number
        self.is_reservation = is_reservation
        self.is_launched = not is_reservation
        self.expires = expires
        self.answer_due: float | None = expires + grace
        self.hold_due = self.ask_due = self.over_due = NEVER
        self.granted = self.has_started = self.not_started = self.over = False
        self.is_accepted = self.cancelled = self.is_asking = False
        self.process: Process | None = None
        self.entered = self.starts = 0


class Track:
    """What was seen of one process."""

    __slots__ = (
        "causes",
        "changed_by",
        "ended",
        "forgotten",
        "generation",
        "is_overcrowded",
        "launcher",
        "state",
        "was",
        "was_asked",
        "was_signalled",
    )

    def __init__(self, generation: int, launcher: int, state: str) -> None:
        self.generation = generation
        self.launcher = launcher
        self.state = self.was = state
        self.changed_by: Any = None
        """The event in which it had ``was`` for a state before."""
        self.ended = self.forgotten = self.was_asked = self.was_signalled = False
        self.is_overcrowded = False
        self.causes: tuple[str, ...] = ()
        """Of the first decision to end it."""


class Oracles:
    """The oracles of one history."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.core = world.core
        self.pool = world.core.pool
        self.callers: dict[int, Caller] = {}
        self.active: set[int] = set()
        self.waiting: set[int] = set()
        self.asking: set[int] = set()
        self.rejected: list[Caller] = []
        self.put_back: list[int] = []
        self.broken: list[str] = []
        self.tracks: dict[str, Track] = {}
        self.warming: dict[int, int] = {}
        self.reloads: dict[int, bool] = {}
        self.given_up: set[int] = set()
        """Reloads for which nobody waits any more."""
        self.put: dict[int, str] = {}
        """The process that has a question about a job, and neither answered it nor was told to forget it."""
        self.queries: dict[int, float] = {}
        self.in_vain: set[int] = set()  # questions that the app does not answer
        """Questions that are not about a job, and have no answer yet: by when they must have one."""
        self.news: dict[tuple[str, str], bytes] = {}
        self.known: dict[str, dict[tuple[str, str], bytes]] = {}
        """What each resident process was told, and is true."""
        self.resident_forks: list[float] = []
        self.watched: set[str] = set()
        """Residents whose event loop is watched."""
        self.answered = 0
        """The job about which the hook has answered in this event."""
        self.is_closing = self.is_closed = self.is_opened = self.is_settled = self.is_draining = False
        self.close_due: float | None = None
        self.served: list[int] = []
        self.warmed: dict[Generation, int] = {}
        self.wanted: dict[int, int] = {}
        self.digests: dict[Generation, str] = {}
        self.numbers: dict[int, Generation] = {}
        self.event: Any = None
        self.faults: set[tuple[str, str, int]] = set()
        self.reasons: set[str] = set()
        self.strict = not (_SLOW & world.weights.keys()) and all(
            action.kind not in ("pause", "lose launcher", "no fds") for action in world.plan.actions
        )
        self.grace = STRICT_GRACE + world.plan.pace if self.strict else GRACE
        self.lag = world.plan.lag + 1e-6

    def fail(self, oracle: str, text: str) -> None:
        raise Violation(oracle, f"at {self.world.now:.4f} s: {text}")

    def injected(self, fault: str, kind: str, number: int) -> None:
        """Note a fault that the world injects."""
        self.faults.add((fault, kind, number))

    # --- events ----------------------------------------------------------------------------------

    def before(self, event: Any) -> None:
        """Note an event before it is handled."""
        self.event = event
        self.answered = 0
        note = _BEFORE.get(type(event))
        if note is not None:
            note(self, event)

    def _launch(self, event: v.Launch) -> None:
        self._requests(event, False)

    def _reserve(self, event: v.Reserve) -> None:
        self._requests(event, True)

    def _requests(self, event: v.Launch | v.Reserve, is_reservation: bool) -> None:
        expires = self.world.now + event.timeout
        self.callers[event.number] = Caller(event.number, is_reservation, expires, self.grace)

    def _ask_app(self, event: v.AskApp) -> None:
        self.callers[event.number].ask_due = self.world.now + self.pool.options.request_timeout + self.lag

    def _reload(self, event: v.Reload) -> None:
        self.reloads[event.number] = False

    def _give_up_reload(self, event: v.GiveUpReload) -> None:
        if self.reloads.get(event.number) is False:
            self.reloads[event.number] = True  # whatever is said of it now is said to nobody
            self.given_up.add(event.number)

    def _answered(self, event: v.Answered) -> None:
        if self.put.get(event.number) == event.process:
            del self.put[event.number]
            self.answered = event.number

    def _query(self, event: v.AskResident) -> None:
        facts = self.pool.serving.facts if self.pool.serving is not None else None
        if facts is None or event.topic not in facts.topics:
            self.in_vain.add(event.number)
        self.queries[event.number] = self.world.now + event.timeout + self.lag

    def _set_news(self, event: v.SetNews) -> None:
        self.news.pop((event.topic, event.key), None)
        if event.body is not None:
            self.news[event.topic, event.key] = event.body

    def _drain(self, event: v.Drain) -> None:
        self.is_draining = True
        if self.strict:
            for number in self.active:
                self._bound_end(self.callers[number], event.timeout)

    def _close(self, event: v.Close) -> None:
        if not self.is_closing:
            self.is_closing = True
            self.close_due = self.world.now + self._longest_end() + self._close_grace()
        if self.strict:
            for number in self.active:
                self._bound_end(self.callers[number], 0.0)

    def _close_grace(self) -> float:
        if self.strict and not any(name.startswith("launcher") for name in self.world.weights):
            return 5.0 + 3.0 + self.grace  # a fork, and a launcher that is loading
        return 100.0

    def _cancel(self, event: v.Cancel) -> None:
        caller = self.callers.get(event.number)
        if caller is not None and caller.is_accepted and not event.unless_ending and self.strict:
            self._bound_end(caller, 0.0)

    def _bound_end(self, caller: Caller, seconds: float) -> None:
        caller.over_due = min(caller.over_due, self.world.now + seconds + self._longest_end() + self.grace + 2.0)

    def _longest_end(self) -> float:
        """Return the seconds that a job may take to end, whatever happens to it."""
        options = self.world.plan.options
        own_end = max((code.end_timeout for code in self.world.plan.codes), default=0.0)
        shutdown = max(options.shutdown_timeout, 1.0)  # an app may set that
        return own_end + 3 * (shutdown + 1.0) + 2 * options.cleanup_timeout

    def _loaded(self, event: v.LauncherLoaded) -> None:
        is_open = self.pool.job_queue.state is JobQueueState.OPEN
        # What it says a second time breaks the protocol, and counts for nothing.
        self.wanted.setdefault(event.launcher, max(self.pool.options.num_idle_processes, 1) if is_open else 1)

    # --- after -----------------------------------------------------------------------------------

    def after(self, event: Any, effects: list[Any]) -> None:
        """Judge what holds after each event, and what must have come of this one."""
        problems = self.core.invariants()
        if problems:
            self.fail("invariants", f"after {event}: {problems}")
        if self.close_due is not None and self.world.now > self.close_due:
            self.fail("close is bounded", f"it was to be closed at {self.close_due}")
        if self.put_back:
            self.waiting.update(self.put_back)
            self.put_back.clear()
        if self.broken:
            self._check_broken()
        if self.rejected and not self.rejected.pop().not_started:
            self.fail("a rejection ends the reservation", f"after {event}")
        if self.asking:
            self._check_asks()
        pool = self.pool
        if pool.job_queue.waiting and pool.serving is not None and pool.serving.idle:
            self.fail("no process idles while a job waits", f"after {event}")
        if self.is_draining and not self.is_closing and pool.serving is not None and pool.serving.resident is not None:
            self._check_resident(pool.serving.resident.state)
        note = _AFTER.get(type(event))
        if note is not None:
            note(self, event, effects)
        if self.put:
            self._check_put()
        if self.queries:
            self._check_queries()
        if self.news or self.known:
            self._check_news()

    def _check_asks(self) -> None:
        for number in list(self.asking):
            caller = self.callers[number]
            if caller.not_started or caller.over or not caller.is_asking:
                self.asking.discard(number)
            elif self.world.now > caller.ask_due:
                self.fail("asks are answered in time", f"the question about job {number} was not")

    def _check_queries(self) -> None:
        for number, due in self.queries.items():
            if self.world.now > due:
                self.fail("asks are answered in time", f"question {number} was not")

    def _check_news(self) -> None:
        serving = self.pool.serving
        process = serving.resident if serving is not None else None
        if process is None or process.facts is None or process.state is not ProcessState.RESIDENT:
            return
        known = self.known.get(process.id, {})
        if list(known.items()) != (list(self.news.items()) if "job" in process.facts.topics else []):
            self.fail("news are known", f"{process.id} knows {known} of {self.news}, after {self.event}")
        if known and process.id not in self.watched:
            self.fail("watched", f"{process.id} was told something, and is not watched")

    def _inform(self, effect: v.Inform) -> None:
        self._on_forked_process(effect)
        facts = self.pool.processes[effect.process].facts
        known = self.known.setdefault(effect.process, {})
        for topic, key, body in effect.news:
            if facts is None or topic not in facts.topics:
                self.fail("news are for those who hear them", f"{effect}")
            known.pop((topic, key), None)
            if body is not None:
                known[topic, key] = body

    def _check_resident(self, state: ProcessState) -> None:
        """Judge that a drain does not keep the request hook for nobody."""
        held = [self.callers[number] for number in self.active if not self.callers[number].is_launched]
        is_needed = any(one.is_asking or one.ask_due == NEVER for one in held) or self.waiting or self.queries
        if state is ProcessState.RESIDENT and not is_needed and type(self.event) is not v.AskApp:
            self.fail("a drain ends the hook that nobody needs", f"after {self.event}")

    def _check_put(self) -> None:
        """Judge that a question which nobody waits for was taken back, if the process is there that has it."""
        for number, process_id in list(self.put.items()):
            if number >= QUERIES:
                self._check_put_query(number, process_id)
                continue
            record, caller = self.pool.processes.get(process_id), self.callers[number]
            if record is None or record.state is not ProcessState.RESIDENT:
                del self.put[number]  # it ends, and its questions with it
                if caller.is_asking and not caller.not_started:
                    self.fail("a question ends with its process", f"that about job {number} does not")
            elif process_id not in self.watched:
                self.fail("watched", f"{process_id} has a question, and is not watched")
            elif not caller.is_asking or caller.not_started:
                self.fail("questions are taken back", f"that about job {number} was not, after {self.event}")

    def _check_put_query(self, number: int, process_id: str) -> None:
        record = self.pool.processes.get(process_id)
        if record is None or record.state is not ProcessState.RESIDENT:
            del self.put[number]
            if number in self.queries:
                self.fail("a question ends with its process", f"question {number} does not")
        elif process_id not in self.watched:
            self.fail("watched", f"{process_id} has a question, and is not watched")
        elif number not in self.queries:
            self.fail("questions are taken back", f"question {number} was not, after {self.event}")

    def _after_give_up(self, event: v.GiveUpReload, effects: list[Any]) -> None:
        if event.number not in self.given_up:
            return
        trial = self.pool.trial
        if (trial is not None and trial.request == event.number) or event.number in self.pool.job_queue.reloads:
            self.fail("what is given up is not served", f"reload {event.number} goes on")

    def _after_stalled(self, event: v.Stalled, effects: list[Any]) -> None:
        record = self.pool.processes.get(event.process)
        if event.stall is Stall.STARVED:
            if any(type(effect) in (v.Kill, v.Dump) for effect in effects):
                self.fail("what is starved is left alone", f"{effects}")
        elif record is not None and record.state.public not in ("killing", "exited"):
            self.fail("a stall is the end", f"process {record.id} is {record.state.name}")

    def _after_measured(self, event: v.Measured, effects: list[Any]) -> None:
        track = self.tracks[event.process]
        is_reported = any(type(effect) is e.MemorySampled for effect in effects)
        if is_reported != (track.state in ("idle", "running") and not track.forgotten):
            is_unfit = self.pool.processes[event.process].state is ProcessState.UNFIT
            if not is_unfit:
                self.fail("samples are told", f"{event} of a process that is {track.state}: {effects}")

    def _after_request(self, event: v.Launch | v.Reserve, effects: list[Any]) -> None:
        caller = self.callers[event.number]
        if caller.over or caller.not_started:
            return
        if caller.is_reservation:
            self._take_on(caller)
        elif not caller.is_accepted:
            self.fail("answered once", f"{event} was neither refused nor accepted")
        is_promised = caller.granted and self.pool.job_queue.jobs[caller.number].process is None
        if not caller.starts and (is_promised or not caller.granted):
            self.waiting.add(caller.number)

    def _take_on(self, caller: Caller) -> None:
        caller.is_accepted = True
        if len(self.active) >= self.pool.options.max_jobs:
            self.fail("max_jobs", f"job {caller.number} is accepted beside {self.active}")
        self.active.add(caller.number)

    def _after_cancel(self, event: v.Cancel, effects: list[Any]) -> None:
        caller = self.callers.get(event.number)
        if caller is not None and caller.is_accepted:
            caller.cancelled = caller.cancelled or not caller.has_started or not event.unless_ending

    def _after_ask(self, event: v.AskApp, effects: list[Any]) -> None:
        caller = self.callers[event.number]
        is_refused = any(type(effect) is v.Refused for effect in effects)
        if is_refused:
            return
        if not any(type(one) is v.AppAnswered for one in effects):
            caller.is_asking = True
            self.asking.add(caller.number)

    def _after_close(self, event: v.Close, effects: list[Any]) -> None:
        for caller in self.callers.values():
            caller.cancelled = caller.cancelled or not caller.has_started
        for record in self.pool.processes.values() if event.kill else ():
            if record.state not in _BEYOND_ORDERS:
                self.fail("close kills at once", f"process {record.id} is {record.state.name} after {event}")

    def _after_forked(self, event: v.Forked, effects: list[Any]) -> None:
        if not any(type(effect) in (v.WatchMemory, v.Kill) for effect in effects):
            self.fail("watched", f"{event.process} is forked, and not watched")

    def _after_started(self, event: v.Started, effects: list[Any]) -> None:
        record = self.pool.processes.get(event.process)
        if record is None or record.state.public != "running" or record.options.stall_timeout is None:
            return
        if not any(type(effect) is v.WatchStalls for effect in effects):
            self.fail("watched", f"{event.process} runs, and is not watched")

    # --- effects on callers ----------------------------------------------------------------------

    def saw(self, effect: Any) -> None:
        """Judge an effect when it is performed."""
        note = _SAW.get(type(effect))
        if note is not None:
            note(self, effect)

    def _refused(self, effect: v.Refused) -> None:
        event = self.event
        if getattr(event, "number", None) != effect.number:
            self.fail("refusals are immediate", f"{effect} after {event}")
        if type(event) is v.LaunchReserved:
            caller = self.callers[effect.number]
            is_held = caller.granted and not caller.is_launched and not caller.not_started
            if is_held and not caller.is_asking:
                self.fail("a reservation can be launched", f"{effect}")
        if type(event) not in (v.Launch, v.Reserve):
            return
        caller = self.callers[effect.number]
        if caller.is_accepted or caller.over:
            self.fail("answered once", f"{effect}")
        caller.over = caller.not_started = True
        caller.answer_due = None
        reason = effect.error.reason if isinstance(effect.error, NoCapacity) else ""
        if reason == "full" and len(self.active) < self.pool.options.max_jobs:
            self.fail("max_jobs", f"{effect} beside {self.active}")
        if reason == "warming" and type(event) is v.Launch:
            self.fail("a launch waits", f"{effect}")
        if reason == "draining" and self.pool.job_queue.state is JobQueueState.OPEN:
            self.fail("refused for a reason", f"{effect}")

    def _job_accepted(self, effect: e.JobAccepted) -> None:
        caller = self.callers[int(effect.job_id[4:])]
        now = self.world.now
        if caller.is_reservation:
            if not caller.granted or caller.is_launched or type(self.event) is not v.LaunchReserved:
                self.fail("answered once", f"{effect}")
            if now > caller.hold_due:
                self.fail("reservations expire", f"job {caller.number}")
            caller.is_launched = True
            caller.expires = now + 5.0
            caller.answer_due = caller.expires + self.grace
            return
        if caller.is_accepted or caller.over or self.is_draining or self.is_closing:
            self.fail("accepted once", f"{effect}")
        self._take_on(caller)

    def _granted(self, effect: v.Granted) -> None:
        caller = self.callers[effect.number]
        if not caller.is_reservation or caller.granted or caller.not_started or caller.has_started:
            self.fail("answered once", f"{effect}")
        is_promise = self.pool.job_queue.jobs[effect.number].process is None
        if is_promise and not (type(self.event) is v.Reserve and self.event.takes_promise):
            self.fail("a promise is made to who takes one", f"{effect} after {self.event}")
        caller.granted = True
        self._in_time(caller, effect)
        caller.hold_due = self.world.now + self.pool.options.reservation_timeout + self.lag

    def _app_answered(self, effect: v.AppAnswered) -> None:
        if effect.number >= QUERIES:
            self._query_answered(effect)
            return
        caller = self.callers[effect.number]
        if caller.not_started or (not caller.is_asking and type(self.event) is not v.AskApp):
            self.fail("answered once", f"{effect}")
        if self.world.now > caller.ask_due:
            self.fail("asks are answered in time", f"{effect}")
        caller.is_asking = False
        stand_in = self.pool.options.request_failure == "accept"
        accepted = self.event.accepted if self.answered == effect.number else stand_in
        if effect.accepted != accepted:
            self.fail("the answer is the hook's, or the setting's", f"{effect} after {self.event}")
        if not effect.accepted:
            self.rejected.append(caller)
        else:
            caller.hold_due = self.world.now + self.pool.options.reservation_timeout + self.lag

    def _query_answered(self, effect: v.AppAnswered) -> None:
        due = self.queries.pop(effect.number, None)
        if due is None:
            self.fail("answered once", f"{effect}")
        elif self.world.now > due:
            self.fail("asks are answered in time", f"{effect}")
        if effect.accepted != (self.answered == effect.number and self.event.accepted):
            self.fail("the answer is the app's", f"{effect} after {self.event}")

    def _has_started(self, effect: v.HasStarted) -> None:
        caller = self.callers[effect.number]
        if caller.has_started or caller.not_started or caller.over or not caller.is_launched:
            self.fail("answered once", f"{effect}")
        self._in_time(caller, effect)
        caller.has_started = True
        if self.strict:
            process = caller.process
            record = self.pool.processes.get(process.id) if process is not None else None
            timeout = record.options.job_timeout if record is not None else None
            if timeout is not None:
                self._bound_end(caller, timeout)

    def _not_started(self, effect: v.NotStarted) -> None:
        caller = self.callers[effect.number]
        if caller.has_started or caller.not_started or caller.over:
            self.fail("answered once", f"{effect}")
        if not caller.is_launched and caller.granted and self.world.now > caller.hold_due:
            self.fail("reservations expire", f"{effect}")
        self._in_time(caller, effect)
        process = caller.process
        if process is not None and not process.is_reported_dead and not self._is_given_up(process):
            self.fail("no answer before the death", f"{effect}: {process.id} lives")
        caller.not_started = True
        self.waiting.discard(caller.number)
        if caller.is_reservation and not caller.is_launched:
            self.active.discard(caller.number)

    def _is_given_up(self, process: Process) -> bool:
        return self.pool.processes.get(process.id) is None or "cannot be killed" in self._last_log

    _last_log = ""

    def _in_time(self, caller: Caller, effect: Any) -> None:
        if caller.answer_due is not None and self.world.now > caller.answer_due:
            self.fail("answered in time", f"{effect}, due at {caller.answer_due:.3f}")
        caller.answer_due = None

    def _over(self, effect: v.Over) -> None:
        caller = self.callers[effect.number]
        if caller.over or not caller.is_launched or not (caller.has_started or caller.not_started):
            self.fail("one report", f"{effect}")
        if self.world.now > caller.over_due:
            self.fail("ends in time", f"{effect}, due at {caller.over_due:.3f}")
        caller.over = True
        self.active.discard(caller.number)
        report = effect.report
        self.reasons.add(report.reason)
        if report.process_id is None:
            self._judge_unstarted(report.reason)
        elif not self.tracks[report.process_id].forgotten:
            self.fail("reports in order", f"{effect} before its process was forgotten")

    def _judge_unstarted(self, reason: str) -> None:
        kind = type(self.event)
        allowed = {v.Cancel: ("cancelled",), v.Close: ("drained",), v.Drain: ("drained",)}.get(kind, ("start_timeout",))
        if self.is_draining and kind is v.Tick:
            allowed = ("start_timeout", "drained")
        if reason not in allowed:
            self.fail("the true cause", f"a job that never had a process ended by {reason} after {self.event}")

    def _has_reloaded(self, effect: v.HasReloaded) -> None:
        if self.reloads.get(effect.number, True):
            self.fail("answered once", f"{effect}")
        self.reloads[effect.number] = True
        if effect.error is None and not (self.has_served_more and self.served[-1] == self._reloaded_to):
            self.fail("reloaded after the proof", f"{effect}")

    has_served_more = False
    _reloaded_to = 0

    def _reloaded(self, effect: e.Reloaded) -> None:
        if self._reloaded_to == self.served[-1] or effect.generation != self.served[-1] or len(self.served) < 2:
            self.fail("reloads are told once", f"{effect}: {self.served}")
        self.has_served_more, self._reloaded_to = True, effect.generation

    def _reload_failed(self, effect: e.ReloadFailed) -> None:
        if type(self.event) is v.GiveUpReload or self.is_closing or not self.served:
            self.fail("reloads are told once", f"{effect} after {self.event}")

    def _zygote_started(self, effect: e.ZygoteStarted) -> None:
        number = effect.generation
        if number in self.served:
            if number != self.served[-1]:
                self.fail("one generation serves", f"{effect}")
            return
        if self.pool.generations[number].request in self.given_up:
            self.fail("what is given up is not served", f"{effect}")
        if self.served and number < self.served[-1]:
            self.fail("generations are counted on", f"{effect} after {self.served}")
        if self.served:
            wanted = self.wanted.get(self._launcher_of(number), 1)
            if self._warmed_of(number) < wanted:
                self.fail("served after the proof", f"{effect}: {self._warmed_of(number)} of {wanted} became warm")
        self.served.append(number)

    def _launcher_of(self, generation: int) -> int:
        launcher = self.pool.generations[generation].launcher
        return launcher.number if launcher is not None else 0

    def _process_warmed(self, effect: e.ProcessWarmed) -> None:
        if type(self.event) is not v.Warm or self.event.process != effect.process_id:
            self.fail("warm by its word", f"{effect} after {self.event}")
        generation = self.pool.generations[effect.generation]
        self.warmed[generation] = self.warmed.get(generation, 0) + 1

    def _warmed_of(self, number: int) -> int:
        return self.warmed.get(self.pool.generations[number], 0)

    def _opened(self, effect: v.Opened) -> None:
        if self.is_opened:
            self.fail("answered once", f"{effect}")
        self.is_opened = True

    def _closed(self, effect: v.Closed) -> None:
        if self.is_closed or not self.is_closing or self.active:
            self.fail("closed once", f"{effect}: {self.active}")
        if self.queries:
            self.fail("answered once", f"{effect}, and the questions {list(self.queries)} were not")
        for launcher in self.world.launchers.values():
            if not launcher.is_forgotten:
                self.fail("closed once", f"{effect}, and launcher {launcher.number} is there")
        self.is_closed = True
        self.close_due = None

    def _settled(self, effect: v.Settled) -> None:
        if self.is_settled:
            self.fail("answered once", f"{effect}")
        self.is_settled = True

    def _emptied(self, effect: v.Emptied) -> None:
        if self.active or any(not track.forgotten for track in self.tracks.values()):
            self.fail("emptied", f"{effect}, and there is something")

    def _claim_failed(self, effect: e.ClaimFailed) -> None:
        number = int(effect.job_id[4:])
        caller = self.callers[number]
        if effect.retried:
            if caller.starts >= 3:
                self.fail("attempts are bounded", f"{effect}")
            self.waiting.add(number)
        elif type(self.event) is v.Died:
            may_go_on = caller.starts < 3 and self.world.now < caller.expires and not self.is_closing
            if may_go_on and not self._may_breach(effect.process_id):
                self.fail("tried again", f"{effect} after {caller.starts} attempts")

    # --- effects on processes --------------------------------------------------------------------

    def _breach(self, effect: v.Breach) -> None:
        kind, name = effect.who.split(" ", 1)
        if kind == "process" and self._may_breach(name):
            return
        if kind == "launcher" and self._launcher_may_breach(int(name)):
            return
        self.fail("no breach", f"{effect} after {self.event}")

    def _may_breach(self, process_id: str) -> bool:
        number = self.world.processes[process_id].number
        return any((fault, "process", number) in self.faults for fault in _BREACHES)

    def _launcher_may_breach(self, number: int) -> bool:
        return any((fault, "launcher", number) in self.faults for fault in _LAUNCHER_BREACHES)

    def _log(self, effect: v.Log) -> None:
        self._last_log = effect.text
        is_breach = effect.fields.get("event") == "protocol_error" and "process_id" in effect.fields
        if is_breach and not self._may_breach(str(effect.fields["process_id"])):
            self.fail("no breach", f"{effect.text} after {self.event}")
        if is_breach:
            self.broken.append(str(effect.fields["process_id"]))

    def _check_broken(self) -> None:
        """Judge that a process which broke the protocol is killed, or dead."""
        record = self.pool.processes.get(self.broken.pop())
        if record is not None and record.state.public not in ("killing", "exited"):
            self.fail("a breach is the end", f"process {record.id} is {record.state.name} after {self.event}")

    def _after_broke(self, event: v.LauncherBroke, effects: list[Any]) -> None:
        record = self.pool.launchers.get(event.launcher)
        if record is not None and record.state not in _KILLED:
            self.fail("a breach is the end", f"launcher {record.number} is {record.state.name} after {event}")

    def _fork(self, effect: v.Fork) -> None:
        launcher = self.world.launchers[effect.launcher]
        if launcher.is_forgotten or not launcher.is_loaded:
            self.fail("no effect on what is gone", f"{effect}")
        number = self.tracks[effect.process].generation
        if self.served and number < self.served[-1]:
            self.fail("one generation serves", f"{effect} while {self.served[-1]} serves")
        code = launcher.code
        if code is not None and not launcher.spawns:
            generation = self.pool.generations[number]
            if self.digests.setdefault(generation, code.digest) != code.digest:
                self.fail("code is proven", f"{effect} from {code.digest}, of {self.digests[generation]}")
        if self.is_closing or (self.is_draining and not self.waiting and number in self.served):
            self.fail("no fork in vain", f"{effect} after {self.event}")
        if self.pool.processes[effect.process].is_resident:
            now = self.world.now
            self.resident_forks = [at for at in self.resident_forks if now - at < 1.0] + [now]
            if len(self.resident_forks) > MOST_RESIDENTS:
                self.fail("a resident that dies is not replaced for ever", f"{effect}: {self.resident_forks}")
        if self.warming[number] > self.pool.options.max_concurrent_prewarms:
            self.fail("max_concurrent_prewarms", f"{effect} is one of {self.warming[number]}")

    def _process_changed(self, effect: e.ProcessChanged) -> None:
        process_id, before, after = effect.process_id, effect.before, effect.after
        track = self.tracks.get(process_id)
        if track is None:
            self.tracks[process_id] = Track(effect.generation, 0, after)
            self.warming[effect.generation] = self.warming.get(effect.generation, 0) + 1
            return
        if track.state != before or track.forgotten:
            self.fail("states in order", f"{effect} comes from {track.state}")
        if track.changed_by is not self.event:
            track.changed_by, track.was = self.event, before
        track.state = after
        if before in _BECOMING_WARM and after not in _BECOMING_WARM:
            self.warming[effect.generation] -= 1
        if after == "reserved" and effect.job_id is not None:
            self._leaves_queue(int(effect.job_id[4:]))

    def _leaves_queue(self, number: int) -> None:
        waiting = self.waiting
        if number in waiting:
            if min(waiting) != number:
                self.fail("first come, first served", f"job {number} before {sorted(waiting)}")
            waiting.remove(number)
        elif waiting and type(self.event) in (v.Launch, v.Reserve):
            self.fail("first come, first served", f"job {number} before {sorted(waiting)}")

    def _process_ended(self, effect: e.ProcessEnded) -> None:
        report = effect.report
        process_id = report.process_id
        assert process_id is not None
        track = self.tracks[process_id]
        if track.ended:
            self.fail("one report", f"{effect}")
        track.ended = True
        self.reasons.add(report.reason)
        if report.outcome not in POSSIBLE_ENDS[report.reason][0 if report.job_id is not None else 1]:
            self.fail("ends that metrics count from 0", f"{report.outcome}, {report.reason}, job {report.job_id}")
        self._judge(self.world.processes[process_id], track, report)

    def _judge(self, process: Process, track: Track, report: Any) -> None:
        """Compare the reported reason with what has truly happened."""
        reason, causes, status = report.reason, track.causes, process.status
        if report.pid is not None and report.detail.endswith("while it was requested"):
            self.fail("the true cause", f"{report} of {process.id}, which was forked")
        known = status is not None and report.exit_code == status.exit_code and report.signal == status.signal
        if process.oom and known and not causes and reason != process.oom:
            self.fail("the true cause", f"{report} of {process.id}, killed by the kernel: {process.oom}")
        if not known or (status is not None and status == (None, 9) and not process.killed_by_us):
            return  # nobody knows how it ended, or who sent the signal
        assert status is not None
        if process.killed_by_us:
            if causes and reason not in causes:
                self.fail("the true cause", f"{report} of {process.id}, killed for {causes}")
            return
        if status.signal is not None:
            # A crash while its stacks are written is part of being ended.
            is_end = process.is_asked_to_dump or reason in ("prewarm_failed", "shutdown_timeout")
            if reason != "signaled" and not (reason in causes and is_end):
                self.fail("the true cause", f"{report} of {process.id}, a crash")
            return
        own = {"exited", "completed", "raised"}
        if not causes and reason not in own and reason != "prewarm_failed":
            self.fail("the true cause", f"{report} of {process.id}, which nobody ended")
        if causes and reason not in own and reason not in causes and reason != "prewarm_failed":
            self.fail("the true cause", f"{report} of {process.id}, to be ended for {causes}")
        by_request = process.ended_by_request
        if by_request is False and reason not in own and reason not in ("shutdown_timeout", "protocol_error"):
            self.fail("the true cause", f"{report} of {process.id}, which had ended by itself")
        if causes and causes[0] in ("cancelled", "drained") and by_request and reason not in causes:
            self.fail("the true cause", f"{report} of {process.id}, which did as it was told: {causes}")

    def _decided(self, process_id: str) -> None:
        """Note why the process is ended, if this is the first decision."""
        track = self.tracks[process_id]
        if not track.causes:
            track.causes = self._causes(process_id, track)

    def _causes(self, process_id: str, track: Track) -> tuple[str, ...]:
        event = self.event
        kind = type(event)
        of = getattr(event, "process", None)
        if kind is v.Tick:
            state = track.was if track.changed_by is event else track.state
            causes = [_TIMEOUTS.get(state, "shutdown_timeout")]
            if self.is_draining or len(self.served) > 1 or track.generation not in self.served:
                causes.append("drained")
            return (*causes, "idle_expired", "drained")
        if of is not None and of != process_id:
            return ("drained", "idle_expired")
        if kind is v.Cancel and self.world.processes[process_id].job_id != f"job-{event.number}":
            return ("drained",)  # a reservation's process, of old code
        if kind is v.Stalled and self.world.processes[process_id].is_resident:
            return ("request_timeout",)
        if kind in _CAUSES:
            return _CAUSES[kind]
        if of == process_id:
            return ("protocol_error", "prewarm_failed", "drained")
        return ("drained", "idle_expired", "prewarm_failed")

    def _spared(self, event: Any) -> None:
        """A job that had begun to end by itself is not ended by an order."""
        track = self.tracks.get(event.process)
        record = self.pool.processes.get(event.process)
        if track is None or not track.causes or getattr(event, "told", False) or record is None or record.ended:
            return
        if type(event) in record.heard or getattr(event, "how", "completed") not in _HOWS:
            return  # it breaks the protocol
        is_order = set(track.causes) & {"cancelled", "drained", "job_timeout"} and not track.was_signalled
        is_spared = record.decision is not None and record.decision.spares_own_end
        if is_order and (type(event) is v.Ended or is_spared):
            track.causes = ()

    def _overran(self, event: v.CleaningUp) -> None:
        track = self.tracks.get(event.process)
        if track is not None and event.overrun and not track.causes:
            track.causes = ("shutdown_timeout", "protocol_error")

    def _prewarm_failed(self, event: v.PrewarmFailed) -> None:
        track = self.tracks.get(event.process)
        if track is not None and not track.causes:
            track.causes = ("prewarm_failed", "protocol_error")

    def _died(self, event: v.Died) -> None:
        for word in event.last_words:
            if type(word) is v.PrewarmFailed:
                self._prewarm_failed(word)

    def _forget(self, effect: v.Forget) -> None:
        track = self.tracks[effect.process]
        process = self.world.processes[effect.process]
        if track.forgotten or not track.ended:
            self.fail("forgotten once", f"{effect}")
        if effect.is_alive != (process.exists and not process.is_reported_dead):
            self.fail("forgotten as it is", f"{effect}")
        if not process.exists and not process.is_refused and not process.is_cut:
            self.fail("nothing is left behind", f"{effect}: its launcher may have forked it")
        if effect.is_alive and process.needs_two_kills:
            self.fail("killed twice", f"{effect}: a second SIGKILL would have ended it")
        track.forgotten = True

    def _on_process(self, effect: Any) -> None:
        process = self.world.processes[effect.process]
        if process.is_forgotten or process.is_reported_dead:
            self.fail("no effect on what is gone", f"{effect} after {self.event}")

    def _ask(self, effect: v.Ask) -> None:
        self._on_forked_process(effect)
        number = effect.number
        if number >= QUERIES:
            if number in self.put or number not in self.queries or number in self.in_vain:
                self.fail("asked once", f"{effect} after {self.event}")
            self.put[number] = effect.process
            return
        if effect.job_id != f"job-{number}":
            self.fail("asked once", f"{effect} is about another job")
        caller = self.callers[number]
        is_asked = caller.is_asking or (type(self.event) is v.AskApp and self.event.number == number)
        if number in self.put or not is_asked or caller.not_started:
            self.fail("asked once", f"{effect} after {self.event}")
        self.put[number] = effect.process

    def _withdraw_ask(self, effect: v.WithdrawAsk) -> None:
        self._on_forked_process(effect)
        if self.put.pop(effect.number, "") != effect.process:
            self.fail("questions are taken back", f"{effect}, which does not have it")

    def _watch_stalls(self, effect: v.WatchStalls) -> None:
        self._on_forked_process(effect)
        options = self.pool.processes[effect.process].options
        if not self.world.processes[effect.process].is_resident:
            longest = options.stall_timeout or 0.0
        else:
            longest = max(options.request_timeout, 5.0)
            if effect.process in self.watched:
                self.fail("watched", f"{effect} comes twice")
            self.watched.add(effect.process)
        if not 0.0 < effect.timeout <= longest:
            self.fail("watched", f"{effect}")

    def _on_forked_process(self, effect: Any) -> None:
        process = self.world.processes[effect.process]
        if process.is_forgotten or process.is_reported_dead or not process.exists:
            self.fail("no effect on what is gone", f"{effect} after {self.event}")

    def _ends(self, effect: Any) -> None:
        self._on_forked_process(effect)
        self._decided(effect.process)
        track = self.tracks[effect.process]
        if type(effect) is v.Kill and effect.with_descendants != track.is_overcrowded:
            self.fail("a storm is killed whole", f"{effect} after {self.event}")
        if type(effect) in (v.Kill, v.Dump):
            track.was_signalled = True
        else:
            track.was_asked = True

    def _retire(self, effect: v.Retire) -> None:
        self._ends(effect)
        track = self.tracks[effect.process]
        before = track.was if track.changed_by is self.event else track.state
        if not self.is_draining or self.is_closing or before != "resident" or track.generation != self.served[-1]:
            return
        for number in self.active:
            caller = self.callers[number]
            if caller.granted and not caller.is_launched and not caller.not_started and caller.ask_due == NEVER:
                self.fail("a drain leaves the hook to reservations", f"{effect}: job {number} may ask")

    def _cut(self, effect: v.CutLifeline) -> None:
        self._on_process(effect)
        self._decided(effect.process)

    def _on_dead_process(self, effect: Any) -> None:
        process = self.world.processes[effect.process]
        if process.is_forgotten or not process.is_reported_dead:
            self.fail("no effect on what is gone", f"{effect} after {self.event}")

    def _read_status(self, effect: v.ReadStatus) -> None:
        self._on_dead_process(effect)
        record = self.pool.processes.get(effect.process)
        if record is None or record.due is None or record.due < self.world.now + 5.0:
            self.fail("a status is awaited", f"{effect}, and there is no time for it")

    def _overcrowded(self, event: v.Overcrowded) -> None:
        self.tracks[event.process].is_overcrowded = True

    def _after_overcrowded(self, event: v.Overcrowded, effects: list[Any]) -> None:
        record = self.pool.processes.get(event.process)
        if record is not None and record.state.public not in ("killing", "exited"):
            self.fail("a storm is the end", f"process {record.id} is {record.state.name}")

    def _after_stopped(self, event: v.Stopped, effects: list[Any]) -> None:
        record = self.pool.processes.get(event.process)
        if record is not None and record.state.public in ("idle", "reserved", "claimed"):
            self.fail("what is stopped gets no job", f"{event}: it is {record.state.name}")

    def _on_launcher(self, effect: Any) -> None:
        if self.world.launchers[effect.launcher].is_forgotten:
            self.fail("no effect on what is gone", f"{effect} after {self.event}")

    def _start_launcher(self, effect: v.StartLauncher) -> None:
        if effect.launcher in self.world.launchers:
            self.fail("one record", f"{effect}")
        if self.is_closing:
            self.fail("no launcher in vain", f"{effect}")
        record = self.pool.generations[effect.generation]
        if self.numbers.setdefault(effect.generation, record) is not record:
            self.fail("generations are counted on", f"{effect}: there was one before")

    def _start(self, effect: v.Start) -> None:
        self._on_forked_process(effect)
        number = int(effect.job_id[4:])
        track = self.tracks[effect.process]
        if track.generation not in self.served:
            self.fail("served after the proof", f"{effect} in generation {track.generation}")
        if track.generation != self.served[-1] and type(self.event) is not v.LaunchReserved:
            self.fail("one generation serves", f"{effect} while {self.served[-1]} serves")
        self._leaves_queue(number)
        caller = self.callers[number]
        caller.process = self.world.processes[effect.process]

    def unsent(self, job_id: str) -> None:
        """Note that a start was not sent, since the process was found unfit."""
        caller = self.callers[int(job_id[4:])]
        caller.process = None
        self.put_back.append(caller.number)  # when all that was decided together is done

    def start_sent(self, process: Process, job_id: str) -> None:
        """Note that a start was really sent."""
        caller = self.callers[int(job_id[4:])]
        caller.starts += 1
        attempts = self.pool.job_queue.jobs[caller.number].attempts
        if caller.starts > 3 or caller.starts != attempts:
            self.fail("attempts are bounded", f"job {caller.number}: {caller.starts} starts, {attempts} counted")
        if self.is_closing:
            self.fail("no start after close", f"job {caller.number}")
        if caller.cancelled:
            self.fail("no start after cancel", f"job {caller.number}")
        if caller.not_started or caller.has_started:
            self.fail("no start after an answer", f"job {caller.number}")
        if process.job_id:
            self.fail("one job", f"{process.id} has {process.job_id} and gets {job_id}")

    def entered(self, process: Process) -> None:
        """Note that an entrypoint was entered."""
        caller = self.callers[int(process.job_id[4:])]
        caller.entered += 1
        if caller.entered > 1:
            self.fail("entered once", f"job {caller.number} in {process.id}")

    # --- moments ---------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """Judge a pool that nothing has happened to for a long time."""
        world, pool = self.world, self.pool
        serving = pool.serving
        if self.is_draining or self.is_closing or serving is None or not self._is_good_code(world.code):
            return
        if serving.options.prewarm_timeout < 0.6 * world.plan.pace:
            return  # nothing becomes warm in that time
        launcher = world.launchers.get(self._launcher_of(serving.number))
        if launcher is not None and (launcher.code is None or not self._is_good_code(launcher.code)):
            return
        if launcher is not None and (launcher.hung or launcher.is_dead):
            return  # nobody has asked it for anything
        if launcher is None or serving.launcher is None or serving.launcher.state is not LauncherState.UP:
            self.fail("at rest", "there is no launcher to fork from")
        target = pool.options.num_idle_processes
        idle = [
            one
            for one in world.processes.values()
            if one.stage == "idle" and not one.is_dead and not one.is_stopped and self._is_idle(one.id)
        ]
        generations = {self.tracks[one.id].generation for one in idle}
        if len(idle) != target or generations - {serving.number}:
            self.fail("at rest", f"{len(idle)} idle processes of {generations}, of {target} wanted")
        for one in pool.generations.values():
            if one is not serving and (one.state is not GenerationState.RETIRED or not one.processes):
                self.fail("at rest", f"generation {one.number} is {one.state.name}")
        facts = serving.facts
        if facts is not None and (facts.has_request or facts.topics) and serving.resident is None:
            self.fail("at rest", "there is no resident process")
        if pool.trial is not None or pool.job_queue.reloads:
            self.fail("at rest", "a reload is not done")

    def _is_idle(self, process_id: str) -> bool:
        return self.tracks[process_id].state == "idle"

    def _is_good_code(self, code: Any) -> bool:
        try:
            self.pool.effective.with_app({name: AppSetting(value, "simulated") for name, value in code.settings})
        except AppLoadError:
            return False
        return bool(code.load == "loads" and code.prewarm == "works")

    def expect_empty(self) -> None:
        """Note a drain of a pool that has no job, and in which nothing is amiss."""
        world = self.world
        self.expects_empty = (
            not self.active
            and not self.is_closing
            and not any(one.hung or one.starved for one in world.launchers.values() if not one.is_dead)
            and all(one.frozen_until <= world.now or one.is_forgotten for one in world.processes.values())
            and self.pool.trial is None
            and all(one.is_dead or one.is_forgotten or self._is_calm(one) for one in world.processes.values())
        )

    def _is_calm(self, process: Process) -> bool:
        return self.tracks[process.id].state in ("requested", "forked", "warming", "idle", "resident", "reaped")

    expects_empty = False

    def at_emptied(self) -> None:
        """Judge a drain some seconds later."""
        if self.expects_empty and not self.is_closing and self.pool.processes:
            self.fail("a drain without jobs ends soon", f"{list(self.pool.processes)} are still there")

    def at_end(self) -> None:
        """Judge what must have happened when nothing is left to happen."""
        if not self.is_closed:
            self.fail("closes", "the history ends, and the pool is not closed")
        if not self.is_opened:
            self.fail("answered once", "open was not answered")
        for caller in self.callers.values():
            if not (caller.has_started or caller.not_started):
                self.fail("answered once", f"job {caller.number} was not answered")
            if caller.is_launched and not caller.over:
                self.fail("one report", f"job {caller.number} has no report")
            if caller.is_asking and not (caller.not_started or caller.over):
                self.fail("answered once", f"the question about job {caller.number} was not answered")
        for number in self.queries:
            self.fail("answered once", f"question {number} was not answered")
        for number, is_answered in self.reloads.items():
            if not is_answered:
                self.fail("answered once", f"reload {number} was not answered")
        for process_id, track in self.tracks.items():
            if not track.forgotten:
                self.fail("forgotten once", f"process {process_id} was not forgotten")


_BEYOND_ORDERS = frozenset(
    (
        ProcessState.DOOMED,
        ProcessState.SIGNALLED,
        ProcessState.UNKILLED,
        ProcessState.DEAD,
        ProcessState.UNREPORTED,
    )
)
_CAUSES: dict[type, tuple[str, ...]] = {
    v.Stalled: ("stalled",),
    v.Stopped: ("stalled",),
    v.Unfit: ("stalled",),
    v.Overweight: ("memory_limit",),
    v.Overcrowded: ("process_limit",),
    v.Nonsense: ("protocol_error",),
    v.Cancel: ("cancelled",),
    v.Close: ("drained",),
    v.Drain: ("drained",),
    v.Reload: ("drained",),
    v.Resize: ("idle_expired",),
}

_BEFORE: dict[type, Callable[[Oracles, Any], None]] = {
    v.Launch: Oracles._launch,
    v.Reserve: Oracles._reserve,
    v.AskApp: Oracles._ask_app,
    v.AskResident: Oracles._query,
    v.SetNews: Oracles._set_news,
    v.Cancel: Oracles._cancel,
    v.Reload: Oracles._reload,
    v.GiveUpReload: Oracles._give_up_reload,
    v.Answered: Oracles._answered,
    v.Drain: Oracles._drain,
    v.Close: Oracles._close,
    v.LauncherLoaded: Oracles._loaded,
    v.Ending: Oracles._spared,
    v.Ended: Oracles._spared,
    v.CleaningUp: Oracles._overran,
    v.PrewarmFailed: Oracles._prewarm_failed,
    v.Overcrowded: Oracles._overcrowded,
    v.Died: Oracles._died,
}

_AFTER: dict[type, Callable[[Oracles, Any, list[Any]], None]] = {
    v.Launch: Oracles._after_request,
    v.Reserve: Oracles._after_request,
    v.AskApp: Oracles._after_ask,
    v.Cancel: Oracles._after_cancel,
    v.Close: Oracles._after_close,
    v.Forked: Oracles._after_forked,
    v.Started: Oracles._after_started,
    v.Stopped: Oracles._after_stopped,
    v.Overcrowded: Oracles._after_overcrowded,
    v.GiveUpReload: Oracles._after_give_up,
    v.Stalled: Oracles._after_stalled,
    v.Measured: Oracles._after_measured,
    v.LauncherBroke: Oracles._after_broke,
}

_SAW: dict[type, Callable[[Oracles, Any], None]] = {
    v.Refused: Oracles._refused,
    v.Granted: Oracles._granted,
    v.AppAnswered: Oracles._app_answered,
    v.HasStarted: Oracles._has_started,
    v.NotStarted: Oracles._not_started,
    v.Over: Oracles._over,
    v.HasReloaded: Oracles._has_reloaded,
    v.Opened: Oracles._opened,
    v.Settled: Oracles._settled,
    v.Emptied: Oracles._emptied,
    v.Closed: Oracles._closed,
    v.Breach: Oracles._breach,
    v.Log: Oracles._log,
    v.Fork: Oracles._fork,
    v.Forget: Oracles._forget,
    v.Start: Oracles._start,
    v.Ask: Oracles._ask,
    v.WithdrawAsk: Oracles._withdraw_ask,
    v.Inform: Oracles._inform,
    v.Retire: Oracles._retire,
    v.Shutdown: Oracles._ends,
    v.Dump: Oracles._ends,
    v.Kill: Oracles._ends,
    v.CutLifeline: Oracles._cut,
    v.WatchMemory: Oracles._on_forked_process,
    v.WatchStalls: Oracles._watch_stalls,
    v.Examine: Oracles._on_dead_process,
    v.ReadStatus: Oracles._read_status,
    v.StartLauncher: Oracles._start_launcher,
    v.DumpLauncher: Oracles._on_launcher,
    v.CloseLauncher: Oracles._on_launcher,
    v.KillLauncher: Oracles._on_launcher,
    v.ForgetLauncher: Oracles._on_launcher,
    e.JobAccepted: Oracles._job_accepted,
    e.ClaimFailed: Oracles._claim_failed,
    e.Reloaded: Oracles._reloaded,
    e.ReloadFailed: Oracles._reload_failed,
    e.ZygoteStarted: Oracles._zygote_started,
    e.ProcessChanged: Oracles._process_changed,
    e.ProcessWarmed: Oracles._process_warmed,
    e.ProcessEnded: Oracles._process_ended,
}
