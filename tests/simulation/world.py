"""A simulated shell: it performs the core's effects on simulated processes and launchers, on a virtual clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from greenroom.app_facts import AppFacts
from greenroom.errors import AppLoadError, ErrorInfo
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions
from greenroom.pool.core.exit_verdict import ExitStatus
from greenroom.pool.core.stalls import Sample, Stall

from .oracles import Oracles, Violation
from .plans import Action, Code, Plan, stream

__all__ = ["Launcher", "Process", "World"]

NEVER = float("inf")
MOST_EVENTS = 20_000
ERROR = ErrorInfo("ValueError", "simulated")


class Launcher:
    """A simulated zygote, or the spawner that stands for one."""

    __slots__ = (
        "code",
        "draws",
        "generation",
        "hung",
        "is_dead",
        "is_forgotten",
        "is_loaded",
        "number",
        "pid",
        "samples",
        "spawns",
        "starved",
        "unanswered",
    )

    def __init__(self, number: int, generation: int, spawns: bool, draws: list[float]) -> None:
        self.number = number
        self.generation = generation
        self.spawns = spawns
        self.draws = draws
        self.pid = 100_000 + number
        self.code: Code | None = None
        self.hung = False
        self.starved = False
        self.is_dead = False
        self.is_loaded = False
        self.is_forgotten = False
        """Its loss was reported, or the core has given it up."""
        self.samples = 0
        self.unanswered: set[str] = set()


class Process:
    """A simulated process, and what chance has in store for it."""

    __slots__ = (
        "asked",
        "code",
        "draws",
        "ended_by_request",
        "exists",
        "frozen_until",
        "id",
        "is_asked_to_dump",
        "is_asked_to_end",
        "is_cut",
        "is_dead",
        "is_deaf",
        "is_dumped",
        "is_forgotten",
        "is_killed",
        "is_mute",
        "is_over",
        "is_refused",
        "is_reported_dead",
        "is_resident",
        "is_stopped",
        "job_id",
        "killed_by_us",
        "launcher",
        "needs_two_kills",
        "number",
        "oom",
        "own_end",
        "pid",
        "stage",
        "status",
        "troubles",
        "unread",
    )

    def __init__(self, id: str, number: int, launcher: Launcher, draws: list[float]) -> None:
        self.id = id
        self.number = number
        self.launcher = launcher
        self.draws = draws
        self.code = launcher.code
        self.pid = 1000 + number
        self.exists = self.is_cut = self.is_dead = self.is_forgotten = False
        self.is_reported_dead = self.is_stopped = self.is_mute = self.is_killed = False
        self.is_deaf = self.is_asked_to_end = self.is_over = self.own_end = self.is_resident = False
        self.killed_by_us = self.is_asked_to_dump = self.is_dumped = self.is_refused = self.needs_two_kills = False
        self.ended_by_request: bool | None = None
        """As in the message that the entrypoint has ended, once it is sent."""
        self.frozen_until = 0.0
        self.job_id = self.oom = ""
        self.stage = "requested"
        self.status: ExitStatus | None = None
        self.asked: set[int] = set()
        """The questions about which it still thinks."""
        self.troubles: dict[str, list[str]] = {}
        self.unread: deque[Any] = deque()


STAGES = ("forked", "warming", "idle", "claimed", "running", "ending", "draining", "cleaning")
_YOUNG, _LATE = ("forked", "warming"), ("ending", "draining", "cleaning")
_TROUBLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("die_young", _YOUNG),
    ("die_idle", ("idle",)),
    ("die_claimed", ("claimed",)),
    ("die_running", ("running",)),
    ("die_ending", _LATE),
    ("stop", STAGES[:6]),
    ("stall", ("running", "ending", "draining")),
    ("starve", ("running",)),
    ("heavy", STAGES),
    ("nonsense", STAGES),
    ("double", STAGES[1:]),
    ("wrong", STAGES),
    ("waits", ("running", "ending", "draining", "cleaning", "claimed")),
    ("hang_young", _YOUNG),
    ("hang_claimed", ("claimed",)),
    ("hang_running", ("running",)),
    ("hang_ending", _LATE),
    ("measured", ("idle", "claimed", "running", "draining")),
)
"""What happens at a stage of a process: the fault, and the stages it can happen at."""

DRAWS = 72


class World:
    """One history: the core, the simulated world around it, and the oracles that watch both."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 0.0
        self.offset = 1_700_000_000.0
        self.core = PoolCore(EffectiveOptions(plan.options, plan.fixed), offset=self.offset)
        self.heap: list[tuple[float, int, bool, Callable[..., None], tuple[Any, ...]]] = []
        self.serial = 0
        self.local: deque[Any] = deque()
        self.processes: dict[str, Process] = {}
        self.launchers: dict[int, Launcher] = {}
        self.weights = plan.weights
        self.code = plan.codes[0]
        self.rng = stream(plan.seed, "world", 0)
        self.has_fds = True
        self.is_calm = False
        self.is_closed = False
        self.events = 0
        self.forks = 0
        self.actions = {action.number: action for action in plan.actions if action.kind == "reserve"}
        self.oracles = Oracles(self)

    # --- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Live the whole history. Raises :class:`Violation`."""
        for action in self.plan.actions:
            self.schedule(action.at, self._act, action, is_caller=True)
        self.feed(v.Open())
        ticks, lag, heap, core = 0, self.plan.lag, self.heap, self.core
        while True:
            due = core.next_deadline()
            if heap and (due is None or heap[0][0] <= due + lag):
                at, _, _, act, arguments = heapq.heappop(heap)
                if at > self.now:
                    self.now, ticks = at, 0
                act(*arguments)
            elif due is not None:
                at = due + lag
                if at > self.now:
                    self.now, ticks = at, 0
                ticks += 1
                if ticks > 20:
                    raise Violation("spin", f"ticks spin at {self.now}: {core.next_deadline()}")
                self.feed(v.Tick())
            else:
                break
            if self.events > MOST_EVENTS:
                raise Violation("endless", f"the history does not end: {self.events} events")
        self.oracles.at_end()

    def feed(self, event: Any) -> None:
        """Have the core handle an event; and first of all what performing its effects yields."""
        self._handle(event)
        local = self.local
        while local:
            self._handle(local.popleft())

    def _handle(self, event: Any) -> None:
        self.events += 1
        oracles = self.oracles
        oracles.before(event)
        effects = self.core.handle(event, self.now)
        for effect in effects:
            oracles.saw(effect)
            perform = _PERFORM.get(type(effect))
            if perform is not None:
                perform(self, effect)
        oracles.after(event, effects)

    def schedule(self, seconds: float, act: Callable[..., None], *arguments: Any, is_caller: bool = False) -> None:
        """Have something happen in a while."""
        self.serial += 1
        heapq.heappush(self.heap, (self.now + seconds, self.serial, is_caller, act, arguments))

    def hits(self, draw: float, fault: str, kind: str, number: int) -> bool:
        """Tell whether a fault befalls an entity, by what was drawn for that."""
        if self.is_calm or draw >= self.weights.get(fault, 0.0) or (kind, number) in self.plan.muted:
            return False
        self.oracles.injected(fault, kind, number)
        return True

    # --- callers ---------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        _ACTIONS[action.kind](self, action)

    def _look(self) -> None:
        """Look at the process that the next job would get, as the shell does before a job is promised one."""
        for _ in range(100):
            candidate = self.core.candidate()
            if candidate is None:
                return
            process = self.processes[candidate.id]
            if not process.is_dead and not process.is_stopped:
                return
            self.feed(v.Unfit(process.id, process.is_stopped and not process.is_dead))
        raise Violation("spin", "an unfit process remains the candidate")

    def _launch(self, action: Action) -> None:
        self._look()
        self.feed(v.Launch(action.number, f"job-{action.number}", b"m", action.seconds))

    def _reserve(self, action: Action) -> None:
        self._look()
        self.feed(v.Reserve(action.number, f"job-{action.number}", b"m", action.seconds, takes_promise=action.flag))

    def granted(self, number: int) -> None:
        """Have the holder of a reservation do as planned."""
        action = self.actions.get(number)
        for seconds, act in action.then if action is not None else ():
            self.schedule(seconds, self._follow, number, act, is_caller=True)

    def _follow(self, number: int, act: str) -> None:
        job_id = f"job-{number}"
        if act.startswith("start"):
            self.feed(v.LaunchReserved(number, job_id, None if number % 2 else b"n", 5.0))
        elif act.startswith("ask"):
            self.feed(v.AskApp(number, job_id))
        elif act == "release":
            self.feed(v.Release(number, "simulated"))
        elif act == "spare":
            if self.oracles.callers[number].is_launched:  # only the handle of a job can ask for that
                self.feed(v.Cancel(number, "simulated", True))
        else:
            self.feed(v.Cancel(number, "simulated"))

    def _query(self, action: Action) -> None:
        self.feed(v.AskResident(action.number, "load", b"q", action.seconds))

    def _tell(self, action: Action) -> None:
        self.feed(v.SetNews("job", str(action.count), b"%d" % action.most if action.most is not None else None))

    def _cancel(self, action: Action) -> None:
        self.feed(v.Cancel(action.number, "simulated", action.flag))

    def _cancel_all(self, action: Action) -> None:
        for caller in list(self.oracles.callers.values()):
            if caller.is_accepted and not caller.over:
                self.feed(v.Cancel(caller.number, "simulated", action.flag and caller.is_launched))
                if action.count:
                    self.feed(v.Release(caller.number, "simulated"))

    def _release(self, action: Action) -> None:
        self.feed(v.Release(action.number, "simulated"))

    def _resize(self, action: Action) -> None:
        self.feed(v.Resize(action.count, action.most))

    def _reload(self, action: Action) -> None:
        self.feed(v.Reload(action.number))

    def _give_up(self, action: Action) -> None:
        self.feed(v.GiveUpReload(action.number))

    def _deploy(self, action: Action) -> None:
        self.code = self.plan.codes[action.count]

    def _drain(self, action: Action) -> None:
        self.feed(v.Drain(action.seconds))

    def _quiet_drain(self, action: Action) -> None:
        self.oracles.expect_empty()
        self.feed(v.Drain(action.seconds))

    def _close(self, action: Action) -> None:
        self.feed(v.Close(action.flag))

    def _calm(self, action: Action) -> None:
        self.is_calm = True
        self.has_fds = True

    def _rest(self, action: Action) -> None:
        self.oracles.at_rest()

    def _is_empty(self, action: Action) -> None:
        self.oracles.at_emptied()

    def _lose_launcher(self, action: Action) -> None:
        for launcher in list(self.launchers.values()):
            if not launcher.is_dead and not launcher.spawns:
                self._launcher_dies(launcher)
                return

    def _kill_idle(self, action: Action) -> None:
        """An outsider kills whatever is idle; for some seconds nobody notices."""
        for process in list(self.processes.values()):
            if process.stage == "idle" and not process.is_dead:
                self.oracles.injected("die_idle", "process", process.number)
                self._die(process, ExitStatus(None, 9), lag=action.seconds)

    def _pause(self, action: Action) -> None:
        """The supervisor stands still: the world goes on, and the pool's clock does not."""
        before, now = self.heap[:], self.now
        self.heap.clear()
        for at, serial, is_caller, act, arguments in before:
            moved = at if is_caller else max(now, at - action.seconds)
            self.heap.append((moved, serial, is_caller, act, arguments))
        heapq.heapify(self.heap)
        self.offset += action.seconds
        self.feed(v.Awoke(self.offset))

    def _no_fds(self, action: Action) -> None:
        self.has_fds = False
        self.schedule(action.seconds, self._has_fds_again)

    def _has_fds_again(self) -> None:
        self.has_fds = True

    # --- launchers -------------------------------------------------------------------------------

    def _start_launcher(self, effect: v.StartLauncher) -> None:
        number = effect.launcher
        random = stream(self.plan.seed, "launcher", number).random
        draws = [random() for _ in range(24)]
        spawns = self.plan.options.start_method == "spawn"
        launcher = self.launchers[number] = Launcher(number, effect.generation, spawns, draws)
        if not self.has_fds:
            self.oracles.injected("no_fds", "launcher", number)
            launcher.is_dead = launcher.is_forgotten = True
            self.local.append(v.LauncherFailed(number, AppLoadError("no file descriptors"), is_gone=True))
            return
        if spawns:
            launcher.code, launcher.is_loaded = self.code, True
            self.local.append(v.LauncherSpawned(number, None))
            self.local.append(v.LauncherLoaded(number, None, ""))
            return
        if self._hits(launcher, 0, "launcher_fails"):
            self.schedule(draws[1] * 0.1, self._launcher_fails_to_start, launcher)
        elif not self._hits(launcher, 2, "launcher_never"):
            self.schedule(draws[3] * 0.01, self._launcher_spawned, launcher)

    def _hits(self, launcher: Launcher, draw: int, fault: str) -> bool:
        return self.hits(launcher.draws[draw], fault, "launcher", launcher.number)

    def _launcher_fails_to_start(self, launcher: Launcher) -> None:
        if launcher.is_dead:
            return
        if launcher.draws[5] < 0.3:  # its script fails, and lives on
            self._of_launcher(launcher, v.LauncherFailed(launcher.number, AppLoadError("its script failed")))
            return
        launcher.is_dead = True
        self._is_lost(launcher, v.LauncherFailed(launcher.number, AppLoadError("it was not started"), is_gone=True))

    def _of_launcher(self, launcher: Launcher, event: Any) -> None:
        if not launcher.is_forgotten:
            self.feed(event)

    def _is_lost(self, launcher: Launcher, event: Any) -> None:
        """Report the last that is heard of a launcher."""
        if not launcher.is_forgotten:
            launcher.is_forgotten = True
            self.feed(event)

    def _launcher_spawned(self, launcher: Launcher) -> None:
        if launcher.is_dead:
            return
        self._of_launcher(launcher, v.LauncherSpawned(launcher.number, launcher.pid))
        draws = launcher.draws
        if self._hits(launcher, 4, "launcher_lost_loading"):
            self.schedule(draws[5] * 0.2, self._launcher_dies, launcher)
        if self._hits(launcher, 16, "launcher_breaks"):
            most = min(1.6 * self.plan.options.preload_timeout, 4.0)
            self.schedule(draws[17] ** 2 * most, self._launcher_breaks, launcher)
        if draws[6] > 0.95 and self._hits(launcher, 7, "launcher_hangs_loading"):
            return
        self.schedule(draws[8] * 0.05, self._launcher_begins, launcher)

    def _launcher_begins(self, launcher: Launcher) -> None:
        if launcher.is_dead or launcher.is_forgotten:
            return
        launcher.code = self.code
        self.feed(v.LauncherBegan(launcher.number))
        if launcher.code.load == "hangs" or self._hits(launcher, 7, "launcher_hangs_loading"):
            if launcher.draws[6] > 0.5:  # it is slow: it loads when it is overdue already
                self.schedule(self.plan.options.preload_timeout + 0.01, self._launcher_loads, launcher)
            return
        self.schedule(launcher.draws[9] * 0.3 * self.plan.pace, self._launcher_loads, launcher)

    def _launcher_loads(self, launcher: Launcher) -> None:
        if launcher.is_dead or launcher.is_forgotten:
            return
        code = launcher.code
        assert code is not None
        if code.load == "fails" or self._hits(launcher, 10, "launcher_load_fails"):
            is_gone = launcher.draws[11] < 0.3
            launcher.is_dead = launcher.is_forgotten = is_gone
            self.feed(v.LauncherFailed(launcher.number, AppLoadError("the app does not load"), is_gone))
            if not is_gone and launcher.draws[11] < 0.8:
                self.schedule(0.02, self._launcher_dies, launcher)
            return
        launcher.is_loaded = True
        loaded = v.LauncherLoaded(launcher.number, self._facts(code), code.digest, 0.1, 0.1)
        self.feed(loaded)
        if self._hits(launcher, 12, "launcher_doubles"):
            self.schedule(0.01, self._of_launcher, launcher, loaded)
        if self._hits(launcher, 13, "launcher_lost"):
            self.schedule(launcher.draws[14] ** 2 * 4.0, self._launcher_dies, launcher)
        if self._hits(launcher, 15, "launcher_hangs"):
            self.schedule(launcher.draws[14] ** 2 * 4.0, self._launcher_hangs, launcher)
        launcher.starved = self._hits(launcher, 18, "launcher_starved")

    def _facts(self, code: Code) -> AppFacts:
        settings = {name: [value, "simulated"] for name, value in code.settings}
        return AppFacts(code.has_request, {}, code.end_timeout, settings, list(code.topics))

    def _launcher_hangs(self, launcher: Launcher) -> None:
        launcher.hung = True

    def _launcher_breaks(self, launcher: Launcher) -> None:
        if not launcher.is_dead and not launcher.is_forgotten:
            self.feed(v.LauncherBroke(launcher.number, "nonsense"))

    def _launcher_dies(self, launcher: Launcher) -> None:
        if launcher.is_dead:
            return
        launcher.is_dead = True
        self.schedule(launcher.draws[19] ** 3 * 0.5, self._launcher_lost, launcher)

    def _launcher_lost(self, launcher: Launcher) -> None:
        self._is_lost(launcher, v.LauncherLost(launcher.number, "SIGKILL", "it was killed"))

    def _dump_launcher(self, effect: v.DumpLauncher) -> None:
        launcher = self.launchers[effect.launcher]
        if not self._hits(launcher, 20, "launcher_dump_never"):
            stacks = "stacks" if launcher.draws[5] < 0.5 else ""
            self.schedule(0.05, self._of_launcher, launcher, v.LauncherDumped(launcher.number, stacks))

    def _close_launcher(self, effect: v.CloseLauncher) -> None:
        launcher = self.launchers[effect.launcher]
        if launcher.is_dead:
            return
        if launcher.spawns:
            launcher.is_dead = True
            self.schedule(0.0, self._launcher_lost, launcher)
        elif not launcher.hung and not self._hits(launcher, 21, "launcher_keeps_on"):
            self.schedule(launcher.draws[9] * 0.05, self._launcher_dies, launcher)

    def _kill_launcher(self, effect: v.KillLauncher) -> None:
        launcher = self.launchers[effect.launcher]
        if self._hits(launcher, 22, "launcher_unkillable"):
            return
        seconds = launcher.draws[11] * 12.0 if self._hits(launcher, 23, "launcher_slow_kill") else 0.002
        self.schedule(seconds, self._launcher_dies, launcher)

    def _forget_launcher(self, effect: v.ForgetLauncher) -> None:
        self.launchers[effect.launcher].is_forgotten = True

    def _sample_launcher(self, effect: v.SampleLauncher) -> None:
        launcher = self.launchers[effect.launcher]
        sample: Sample | None = None
        if not launcher.is_dead:
            launcher.samples += 1
            count = launcher.samples
            if launcher.hung or self.processes[effect.process].is_mute:
                state = "T" if launcher.draws[5] < 0.3 else "S"
                sample = Sample(self.now, 0, 0, state, 0.0, 0.0)
            elif launcher.starved:
                sample = Sample(self.now, 0, 0, "R", 0.001 * count, self.now)
            else:
                sample = Sample(self.now, count, count, "S", 0.1 * count, 0.0)
        # Sometimes the look takes so long that the answer to the fork overtakes it.
        self.schedule(0.0 if launcher.draws[1] < 0.7 else 0.01, self._sampled, effect.process, sample)

    def _sampled(self, process_id: str, sample: Sample | None) -> None:
        process = self.processes[process_id]
        if not process.exists and not process.is_forgotten:
            self.feed(v.Sampled(process_id, sample))

    # --- the fork --------------------------------------------------------------------------------

    def _fork(self, effect: v.Fork) -> None:
        self.forks += 1
        number = self.forks
        launcher = self.launchers[effect.launcher]
        random = stream(self.plan.seed, "process", number).random
        process = Process(effect.process, number, launcher, [random() for _ in range(DRAWS)])
        self.processes[process.id] = process
        draws = process.draws
        if not self.has_fds:
            self.oracles.injected("no_fds", "process", number)
            process.is_refused = True
            self.local.append(v.ForkFailed(process.id, "no file descriptors"))
            return
        if launcher.is_dead or launcher.hung:
            return
        if self._befalls(process, 0, "fork_hangs"):
            process.is_mute = True
            return
        seconds = 0.001 + draws[1] * 0.01 * self.plan.pace
        if launcher.starved:
            seconds += draws[2] * 40.0
        elif self._befalls(process, 3, "fork_late"):
            seconds += draws[2] ** 2 * 35.0
        self.schedule(seconds, self._forked, process)

    def _befalls(self, process: Process, draw: int, fault: str) -> bool:
        return self.hits(process.draws[draw], fault, "process", process.number)

    def _forked(self, process: Process) -> None:
        launcher = process.launcher
        if launcher.is_dead or launcher.hung or process.is_forgotten:
            return
        if self._befalls(process, 4, "fork_fails"):
            process.is_refused = True
            self.feed(v.ForkFailed(process.id, "EAGAIN"))
            return
        process.exists = True
        self._draw_troubles(process)
        self.feed(v.Forked(process.id, process.pid))
        if process.is_cut:
            self._die(process, ExitStatus(None, 9))
        else:
            self._stage(process, "forked")
            self._next(process, 5, 0.01, self._hello)

    def _draw_troubles(self, process: Process) -> None:
        draw = 30
        for fault, stages in _TROUBLES:
            if self.weights.get(fault) and self._befalls(process, draw, fault):
                at = stages[int(process.draws[draw + 17] * len(stages))]
                process.troubles.setdefault(at, []).append(fault)
            draw += 1

    def _cut_lifeline(self, effect: v.CutLifeline) -> None:
        process = self.processes[effect.process]
        process.is_cut = True

    # --- what a process does ---------------------------------------------------------------------

    def _next(self, process: Process, draw: int, seconds: float, act: Callable[..., None], *more: Any) -> None:
        self.schedule(process.draws[draw] * seconds * self.plan.pace, self._go_on, process, act, more)

    def _go_on(self, process: Process, act: Callable[..., None], more: tuple[Any, ...]) -> None:
        if process.is_dead:
            return
        if process.frozen_until > self.now:
            if process.frozen_until != NEVER:
                self.schedule(process.frozen_until - self.now, self._go_on, process, act, more)
            return
        act(process, *more)

    def _stage(self, process: Process, stage: str) -> None:
        process.stage = stage
        if process.troubles and not self.is_calm:
            for fault in process.troubles.pop(stage, ()):
                # What befalls a process before it acknowledges its job must be quick.
                is_quick = fault == "wrong" or stage == "claimed"
                most = 0.02 if is_quick else 12.0 if fault in ("heavy", "stop") else 3.0
                seconds = process.draws[28] ** 3 * most
                self.schedule(seconds, self._trouble, process, fault, stage)

    def _send(self, process: Process, message: Any) -> None:
        """Write to the control channel. The supervisor reads it in a while, unless the process dies before."""
        if process.is_deaf:
            return
        process.unread.append(message)
        slow = self._befalls(process, 29, "slow_words")
        self.schedule(process.draws[27] * 0.3 if slow else 0.0, self._read, process)

    def _read(self, process: Process) -> None:
        if process.unread and not process.is_dead and not process.is_forgotten:
            message = process.unread.popleft()
            if type(message) is v.Nonsense:
                process.is_deaf = True
                process.unread.clear()
            self.feed(message)

    def _hello(self, process: Process) -> None:
        facts = self._facts(process.code) if process.launcher.spawns and process.code is not None else None
        if process.launcher.spawns and process.code is not None and process.code.load == "fails":
            self._send(process, v.Hello(process.id))
            self._send(process, v.PrewarmFailed(process.id, ERROR))
            self._next(process, 7, 0.01, self._exit, 1)
            return
        self._send(process, v.Hello(process.id, facts))
        self._stage(process, "warming")
        kind = process.code.prewarm if process.code is not None else "works"
        if kind == "hangs":
            return
        if kind == "dies":
            self._next(process, 6, 0.1, self._exit, 7)
            return
        if kind == "raises" or self._befalls(process, 8, "prewarm_raises"):
            self._next(process, 6, 0.3, self._prewarm_raises)
            return
        self._next(process, 6, 0.5, self._warm)

    def _prewarm_raises(self, process: Process) -> None:
        self._send(process, v.PrewarmFailed(process.id, ERROR))
        if not self._befalls(process, 9, "deaf"):
            self._next(process, 7, 0.05, self._exit, 1)

    def _warm(self, process: Process) -> None:
        self._send(process, v.Warm(process.id, 0.1))
        self._stage(process, "idle")
        if self._befalls(process, 10, "dead_unseen"):
            self.schedule(process.draws[11], self._dies_unseen, process)

    def _dies_unseen(self, process: Process) -> None:
        self._die(process, ExitStatus(None, 11), lag=8.0 * process.draws[12] ** 2)

    def _start(self, effect: v.Start) -> None:
        process = self.processes[effect.process]
        if process.is_dead or process.is_stopped:
            self.local.append(v.Unfit(process.id, process.is_stopped and not process.is_dead))
            self.oracles.unsent(effect.job_id)
            return
        self.oracles.start_sent(process, effect.job_id)
        process.job_id = effect.job_id
        self._stage(process, "claimed")
        self._next(process, 13, 0.02, self._enter)

    def _enter(self, process: Process) -> None:
        self.oracles.entered(process)
        self._send(process, v.Started(process.id, process.job_id))
        self._stage(process, "running")
        self._next(process, 14, 4.0, self._ends)

    def _ends(self, process: Process) -> None:
        """The job begins to end by itself."""
        if process.is_asked_to_end or process.own_end or process.is_over:
            return
        process.own_end = True
        if process.draws[15] < 0.5:
            self._over(process, _how(process.draws[15] * 2), False)
            return
        self._send(process, v.Ending(process.id))
        self._stage(process, "ending")
        self._next(process, 16, 0.5, self._over, _how(process.draws[15] * 2 - 1), False)

    def _over(self, process: Process, how: str, by_request: bool) -> None:
        if process.is_over:
            return
        process.is_over = True
        if process.draws[17] < 0.04:  # os._exit, or a signal of its own
            self._exit(process, 5)
            return
        error = ERROR if how == "raised" else None
        result = b"r" if how == "completed" else None
        self._send(process, v.Ended(process.id, how, by_request, error, result))
        if not process.is_deaf:
            process.ended_by_request = by_request
        self._stage(process, "draining")
        if self._befalls(process, 18, "overrun"):
            self._next(process, 19, 0.2, self._clean_up, True)
        else:
            self._next(process, 19, 0.2, self._clean_up, False)

    def _clean_up(self, process: Process, overrun: bool) -> None:
        self._send(process, v.CleaningUp(process.id, overrun, "a task", "stacks" if overrun else None))
        self._stage(process, "cleaning")
        self._next(process, 20, 0.1, self._exit, 0)

    def _exit(self, process: Process, code: int) -> None:
        self._die(process, ExitStatus(code, None))

    def _shutdown(self, effect: v.Shutdown) -> None:
        process = self.processes[effect.process]
        if process.is_dead or process.is_over or (process.own_end and not effect.bounds_own_end):
            return
        if self._befalls(process, 21, "deaf"):
            return
        if self._befalls(process, 22, "races"):
            process.is_over = process.is_asked_to_end = False
            self._next(process, 23, 0.05, self._ends)
            return
        if not process.own_end:
            process.is_asked_to_end = True
        self._next(process, 23, 0.3, self._obey)

    def _obey(self, process: Process) -> None:
        if not process.is_over:
            how = "cancelled" if process.draws[24] < 0.6 else _how(process.draws[24])
            self._over(process, how if process.is_asked_to_end else "completed", process.is_asked_to_end)

    def _retire(self, effect: v.Retire) -> None:
        process = self.processes[effect.process]
        if not self._befalls(process, 21, "deaf"):
            self._next(process, 23, 0.05, self._exit, 0)

    def _ask(self, effect: v.Ask) -> None:
        process = self.processes[effect.process]
        process.is_resident = True
        process.asked.add(effect.number)
        if self._befalls(process, 25, "answer_never"):
            return
        accepted = not self._befalls(process, 26, "rejects")
        answer = v.Answered(process.id, effect.number, accepted, "" if accepted else "no")
        seconds = 0.3
        if self._befalls(process, 64, "answer_late"):
            seconds = 3 * self.plan.options.request_timeout
        self._next(process, 24, seconds, self._answer, answer)

    def _answer(self, process: Process, answer: v.Answered) -> None:
        # The hook is cancelled when the question is taken back; at times it has answered just before.
        if answer.number in process.asked or process.draws[65] < 0.3:
            process.asked.discard(answer.number)
            self._send(process, answer)

    def _withdraw_ask(self, effect: v.WithdrawAsk) -> None:
        self.processes[effect.process].asked.discard(effect.number)

    def _inform(self, effect: v.Inform) -> None:
        process = self.processes[effect.process]
        process.is_resident = True
        if self._befalls(process, 71, "die_informed"):
            self._next(process, 65, 0.5, self._die, ExitStatus(None, 11))

    def _watch_stalls(self, effect: v.WatchStalls) -> None:
        process = self.processes[effect.process]
        if not process.is_resident:
            return  # what befalls a job's loop is among the troubles
        seconds = process.draws[66] * 3.0
        if self._befalls(process, 67, "hook_starves"):
            self.schedule(seconds * process.draws[68], self._hook_stalls, process, Stall.STARVED)
        if self._befalls(process, 69, "hook_stalls"):
            kind = (Stall.LOOP_BLOCKED, Stall.GIL_HELD, Stall.STOPPED)[int(process.draws[70] * 3)]
            self.schedule(seconds, self._hook_stalls, process, kind)

    def _hook_stalls(self, process: Process, kind: Stall) -> None:
        if process.is_dead or process.is_forgotten:
            return
        if kind is not Stall.STARVED:
            process.frozen_until = NEVER
        self.feed(v.Stalled(process.id, kind, 5.0))

    def _dump(self, effect: v.Dump) -> None:
        process = self.processes[effect.process]
        process.stage = "dumps"
        process.is_asked_to_dump = True
        if not self._befalls(process, 11, "dump_never"):
            seconds = min(effect.time.longest, process.draws[9] ** 2)
            self.schedule(seconds, self._dumped, process)

    def _dumped(self, process: Process) -> None:
        if not process.is_dumped and not process.is_reported_dead and not process.is_forgotten:
            process.is_dumped = True
            self.feed(v.Dumped(process.id, "stacks" if process.draws[8] < 0.8 else ""))

    def _of_process(self, process: Process, event: Any) -> None:
        if not process.is_forgotten and not process.is_reported_dead:
            self.feed(event)

    def _kill(self, effect: v.Kill) -> None:
        process = self.processes[effect.process]
        is_first = not process.is_killed
        process.is_killed = True
        if process.is_dead:
            return
        if process.stage == "dumps":
            self.schedule(0.0, self._dumped, process)  # it ends with what is written
        if self._befalls(process, 12, "unkillable"):
            return
        seconds = 0.001
        if is_first and self._befalls(process, 13, "slow_kill"):
            if process.draws[14] < 0.3:
                process.needs_two_kills = True
                return
            seconds = process.draws[14] * 14.0
        self.schedule(seconds, self._killed, process)

    def _killed(self, process: Process) -> None:
        if not process.is_dead:
            process.killed_by_us = True
            self._die(process, ExitStatus(None, 9))

    # --- what befalls a process ------------------------------------------------------------------

    def _trouble(self, process: Process, fault: str, stage: str) -> None:
        if process.is_forgotten or (process.is_dead and fault not in ("stall", "heavy")):
            return  # a look that takes its time can find what is dead by then
        draws = process.draws
        if fault.startswith("die"):
            status = (ExitStatus(None, 11), ExitStatus(3, None), ExitStatus(None, 9))[int(draws[26] * 3)]
            self._die(process, status)
        elif fault.startswith("hang"):
            process.frozen_until = NEVER
        elif fault == "stop":
            seconds = draws[26] * 4.0
            process.is_stopped = True
            process.frozen_until = max(self.now + seconds, process.frozen_until)
            self.schedule(seconds, self._continue, process)
            self.schedule(0.0 if draws[25] < 0.5 else 0.1, self._stopped, process)
        elif fault == "stall":
            kind = (Stall.LOOP_BLOCKED, Stall.GIL_HELD)[int(draws[26] * 2)]
            if self.plan.options.stall_timeout is not None and not process.is_over:
                self.feed(v.Stalled(process.id, kind, 15.0))
        elif fault == "starve":
            if self.plan.options.stall_timeout is not None:
                self.feed(v.Stalled(process.id, Stall.STARVED, 15.0))
        elif fault == "heavy":
            if self.plan.options.memory_limit_mb is not None:
                self.feed(v.Overweight(process.id, 600.0))
            else:
                self.feed(v.Overcrowded(process.id, 1001))
        elif fault == "measured":
            self.feed(v.Measured(process.id, 40.0 + 20.0 * draws[26]))
        elif fault == "nonsense":
            self._send(process, v.Nonsense(process.id, "nonsense"))
        elif fault == "double":
            self._send(process, _last_of(process, stage))
        elif fault == "wrong":
            self._send(process, _wrong(process, draws[26]))
        elif fault == "waits":
            self.feed(v.Waits(process.id, True))
            self.schedule(draws[26] * 20.0, self._of_process, process, v.Waits(process.id, False))

    def _stopped(self, process: Process) -> None:
        if process.is_stopped:
            self._of_process(process, v.Stopped(process.id, 19))

    def _continue(self, process: Process) -> None:
        process.is_stopped = False

    # --- its death -------------------------------------------------------------------------------

    def _die(self, process: Process, status: ExitStatus, lag: float | None = None) -> None:
        if process.is_dead:
            return
        process.is_dead, process.status = True, status
        self.schedule(0.0 if lag is None else lag, self._died, process)

    def _died(self, process: Process) -> None:
        if process.is_forgotten:
            return
        process.is_reported_dead = True
        words = tuple(process.unread)
        process.unread.clear()
        self.feed(v.Died(process.id, words))
        launcher = process.launcher
        if launcher.spawns or launcher.is_dead or launcher.hung:
            return
        if self._befalls(process, 25, "status_never") or self._befalls(process, 24, "traced"):
            return
        seconds = process.draws[26] * (25.0 if self._befalls(process, 23, "status_late") else 0.05)
        self.schedule(seconds, self._reaped_by_launcher, process)

    def _reaped_by_launcher(self, process: Process) -> None:
        if not process.launcher.is_dead and not process.launcher.hung:
            self._reap(process)

    def _reap(self, process: Process) -> None:
        if process.is_forgotten:
            return
        status = process.status
        assert status is not None
        if self._befalls(process, 22, "status_lost"):
            status = ExitStatus(None, None)
        is_oom = status.signal == 9 and not process.killed_by_us and self._befalls(process, 21, "oom")
        at_limit = is_oom and process.draws[20] < 0.5
        process.oom = "" if not is_oom else "memory_limit" if at_limit else "oom_killed"
        self.feed(v.Reaped(process.id, status, 0.5, 80.0, 0, is_oom and not at_limit, at_limit))

    def _read_status(self, effect: v.ReadStatus) -> None:
        process = self.processes[effect.process]
        if self._befalls(process, 24, "traced") or self._befalls(process, 25, "status_never"):
            return
        self.schedule(0.001, self._reap, process)

    def _examine(self, effect: v.Examine) -> None:
        process = self.processes[effect.process]
        is_traced = self._befalls(process, 24, "traced")
        self.schedule(0.001, self._examined, process, v.Examined(process.id, is_traced))

    def _examined(self, process: Process, event: v.Examined) -> None:
        if not process.is_forgotten:
            self.feed(event)

    def _forget(self, effect: v.Forget) -> None:
        process = self.processes[effect.process]
        process.is_forgotten = True
        process.unread.clear()


def _how(draw: float) -> str:
    return ("completed", "completed", "raised", "exited")[int(draw * 4)]


def _last_of(process: Process, stage: str) -> Any:
    """Return the message that a process has sent at the beginning of a stage."""
    return {
        "warming": v.Hello(process.id),
        "idle": v.Warm(process.id, 0.1),
        "claimed": v.Warm(process.id, 0.1),
        "running": v.Started(process.id, process.job_id),
        "ending": v.Ending(process.id),
        "draining": v.Ended(process.id, "completed", False),
        "cleaning": v.CleaningUp(process.id),
    }[stage]


def _wrong(process: Process, draw: float) -> Any:
    """Return a message that a process may not send, mostly."""
    messages = (
        v.Warm(process.id, 0.1),
        v.Started(process.id, "another"),
        v.Started(process.id, process.job_id),
        v.Ending(process.id),
        v.Ended(process.id, "exploded", False),
        v.Ended(process.id, "completed", False),
        v.CleaningUp(process.id),
        v.Answered(process.id, -1, True),
        v.PrewarmFailed(process.id, ERROR),
        v.Hello(process.id, AppFacts(False, {})),
    )
    return messages[int(draw * len(messages))]


_ACTIONS: dict[str, Callable[[World, Action], None]] = {
    "launch": World._launch,
    "reserve": World._reserve,
    "cancel": World._cancel,
    "query": World._query,
    "tell": World._tell,
    "release": World._release,
    "cancel all": World._cancel_all,
    "resize": World._resize,
    "reload": World._reload,
    "give up": World._give_up,
    "deploy": World._deploy,
    "drain": World._drain,
    "quiet drain": World._quiet_drain,
    "close": World._close,
    "calm": World._calm,
    "rest": World._rest,
    "is empty": World._is_empty,
    "lose launcher": World._lose_launcher,
    "kill idle": World._kill_idle,
    "pause": World._pause,
    "no fds": World._no_fds,
}

_PERFORM: dict[type, Callable[[World, Any], None]] = {
    v.StartLauncher: World._start_launcher,
    v.DumpLauncher: World._dump_launcher,
    v.CloseLauncher: World._close_launcher,
    v.KillLauncher: World._kill_launcher,
    v.ForgetLauncher: World._forget_launcher,
    v.SampleLauncher: World._sample_launcher,
    v.Fork: World._fork,
    v.CutLifeline: World._cut_lifeline,
    v.Start: World._start,
    v.Ask: World._ask,
    v.WithdrawAsk: World._withdraw_ask,
    v.Inform: World._inform,
    v.WatchStalls: World._watch_stalls,
    v.Retire: World._retire,
    v.Shutdown: World._shutdown,
    v.Dump: World._dump,
    v.Kill: World._kill,
    v.Examine: World._examine,
    v.ReadStatus: World._read_status,
    v.Forget: World._forget,
    v.Granted: lambda world, effect: world.granted(effect.number),
}
