"""Driver of the core, in the supervisor: hands events to the core, and performs the effects that the core returns.

:meth:`Shell.report` never nests. All effects of one event are performed before the next event is handled. An event that
comes up meanwhile waits in a queue. The queue is emptied before the event loop turns, so such an event comes before all
events from outside. Otherwise the report of a death could overtake the event that the start was never sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ...errors import fresh
from ...exit_report import ExitReport
from ...log_fields import log_fields
from ...wire import messages as m
from ..core import vocabulary as v
from ..core.core import PoolCore
from ..event_bus import EventBus
from ..events import Event, ProcessEnded
from ..flight_recorder.recorder import Recorder
from ..report_log import log_end
from ..wall_clock import EPOCH
from .callers import Callers, Ticket
from .child_client import ChildClient
from .clock import Timer
from .launchers import Launchers
from .reaper_client import ReaperClient
from .tools import Tools

__all__ = ["Shell"]

_logger = logging.getLogger("greenroom")


class Shell:
    """Shell of a pool, which performs the effects of the core and reports events to the core.

    ``keep`` gets the exit report of each process. ``recorder`` writes each event and its effects to the flight record.
    :mod:`.assembly` makes this object, and then sets :attr:`launchers` and :attr:`reaper`.
    """

    def __init__(
        self,
        core: PoolCore,
        tools: Tools,
        events: EventBus,
        keep: Callable[[ExitReport], object],
        recorder: Recorder | None = None,
    ) -> None:
        self.core = core
        self.recorder = recorder
        self.children: dict[str, ChildClient] = {}
        self.callers = Callers()
        self.settled = asyncio.Event()
        """Event that is set when it is known whether processes become warm. ``ProcessPool.start`` waits for this."""
        self.empty = asyncio.Event()
        """Event that is set while there is neither a process nor a job."""
        self.closed = asyncio.Event()
        """Event that is set at the end of a close, when no launcher is left either."""
        self.launchers: Launchers
        self.reaper: ReaperClient
        """Client of the reaper: a process that ends the rest of the pool when this process, the supervisor, is dead."""
        self.trace_parent_of: Callable[[str], str | None] = lambda job_id: None
        """Function that returns the trace context for a job, by its id."""
        self.tools = tools
        self._clock = tools.clock
        self._events = events
        self._keep = keep
        self._queue: deque[v.Happening] = deque()
        self._is_driving = False
        self._paused = tools.clock.paused
        self._timer: Timer | None = None
        self._fit = ""
        """Id of the process that this request has found alive, or an empty text. No second look is needed then."""
        self._acts = self._all_acts()

    async def close(self) -> None:
        """End all jobs and processes, wait until they are gone, and free what the shell holds."""
        self.report(v.Close())
        await self.closed.wait()
        await self.launchers.close_script()
        await self.tools.orphans.end()
        await self.reaper.end()
        if self.recorder is not None:
            self.recorder.close()
        self.tools.clock.stop()
        self.tools.walks.close()
        self.tools.page_tables.close()
        self.tools.domain.close()
        self.settled.set()

    def own_pids(self) -> set[int]:
        """Return the pids of the pool's processes that are not reaped."""
        return {child.pid for child in self.children.values() if child.pid is not None} | self.launchers.pids

    def living_pids(self) -> set[int]:
        """Return the pids of the pool's processes that are not dead."""
        children = (child for child in self.children.values() if not child.is_dead)
        return {child.pid for child in children if child.pid is not None} | self.launchers.pids

    # --- driving ---------------------------------------------------------------------------------

    def report(self, happening: v.Happening) -> None:
        """Handle an event, and perform its effects. While another event is handled, the event waits in the queue."""
        self._queue.append(happening)
        if self._is_driving:
            return
        self._is_driving = True
        try:
            while self._queue:
                self._take(self._queue.popleft())
        finally:
            self._is_driving = False
        if not self.core.pool.is_empty:
            self.empty.clear()
        self._arm()

    def request(self, request: v.Launch | v.Reserve, ticket: Ticket) -> None:
        """Handle a request for a process. First check that the idle process for this request is alive.

        An idle process that is dead, dying or stopped is reported, and the next idle process is checked. Raises the
        error with which the core refuses the request.
        """
        while (candidate := self.core.candidate()) is not None:
            unfit = self.children[candidate.id].look()
            if unfit is None:
                self._fit = candidate.id
                break
            self.report(unfit)
        self.report(request)
        self._fit = ""
        ticket.job = self.core.pool.job_queue.jobs.get(request.number)
        if ticket.refusal is not None:
            raise fresh(ticket.refusal)

    def _take(self, happening: v.Happening) -> None:
        if self._clock.paused != self._paused:
            self._paused = self._clock.paused
            self._handle(v.Awoke(EPOCH + self._paused))
        if isinstance(happening, v.LauncherLost):
            self.launchers.lost(happening.launcher)
        self._handle(happening)

    def _handle(self, happening: v.Happening) -> None:
        recorder, now = self.recorder, self._clock.now()
        try:
            effects = self.core.handle(happening, now)
        except Exception as error:
            # If the core fails to handle one event, it must still handle all other events.
            _complain("the pool failed to handle %r", happening, error)
            if recorder is not None:
                recorder.note(happening, now, [], type(error).__name__)
            return
        if recorder is not None:
            recorder.note(happening, now, effects)
        self._perform(effects)

    def _perform(self, effects: list[v.Effect]) -> None:
        for effect in effects:
            try:
                act = self._acts.get(type(effect))
                if act is not None:
                    act(effect)
                else:
                    self._publish(effect)
            except Exception as error:
                _complain("the pool failed to perform %r", effect, error)

    def _arm(self) -> None:
        """Set the timer for the core's next deadline. A timer for an earlier time stays: nothing is due at its tick."""
        when = self.core.next_deadline()
        if when is None or (self._timer is not None and self._timer.when <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.report(v.Tick())

    # --- performing ------------------------------------------------------------------------------

    def _all_acts(self) -> dict[type, Callable[[Any], object]]:
        of = self.children
        callers = self.callers
        return {
            v.Fork: self._fork,
            v.SampleLauncher: self._sample,
            v.WatchMemory: lambda effect: of[effect.process].watches.watch_memory(effect.options),
            v.WatchStalls: lambda effect: of[effect.process].watches.watch_stalls(effect.timeout),
            v.Start: self._start,
            v.Ask: lambda effect: _ask(of[effect.process], effect),
            v.WithdrawAsk: lambda effect: of[effect.process].send(m.Withdraw(effect.number)),
            v.Inform: lambda effect: _inform(of[effect.process], effect),
            v.Retire: lambda effect: of[effect.process].send(m.Retire()),
            v.Shutdown: lambda effect: of[effect.process].send(m.Shutdown(effect.reason, effect.bounds_own_end)),
            v.Dump: lambda effect: of[effect.process].dump(effect.time),
            v.Kill: lambda effect: of[effect.process].kill(with_descendants=effect.with_descendants),
            v.CutLifeline: self._cut_lifeline,
            v.Examine: lambda effect: of[effect.process].examine(),
            v.ReadStatus: lambda effect: of[effect.process].read_status(),
            v.Forget: self._forget,
            v.StartLauncher: self._start_launcher,
            v.DumpLauncher: lambda effect: self.launchers.dump(effect.launcher),
            v.CloseLauncher: lambda effect: self.launchers.close(effect.launcher),
            v.KillLauncher: lambda effect: self.launchers.kill(effect.launcher),
            v.ForgetLauncher: lambda effect: self.launchers.forget(effect.launcher),
            v.Refused: callers.refused,
            v.Granted: callers.granted,
            v.AppAnswered: callers.app_answered,
            v.HasStarted: callers.has_started,
            v.NotStarted: self._not_started,
            v.Over: callers.over,
            v.HasReloaded: callers.has_reloaded,
            v.Opened: callers.has_opened,
            v.Settled: lambda effect: self.settled.set(),
            v.Emptied: lambda effect: self.empty.set(),
            v.Closed: lambda effect: self.closed.set(),
            v.Log: _log,
            v.Breach: _log_breach,
        }

    def _fork(self, effect: v.Fork) -> None:
        record = self.core.pool.processes[effect.process]
        try:
            child = ChildClient(record, self.tools, self.report)
        except OSError as error:
            self.report(v.ForkFailed(effect.process, f"no resources for another process: {error}"))
            return
        self.children[effect.process] = child
        self.launchers.fork(effect.launcher, child)

    def _cut_lifeline(self, effect: v.CutLifeline) -> None:
        child = self.children.get(effect.process)
        if child is not None:  # ``None`` if no fds were left to make the child: ForkFailed waits in the queue
            child.channels.cut_lifeline()

    def _forget(self, effect: v.Forget) -> None:
        child = self.children.pop(effect.process, None)
        if child is not None:  # as above
            child.forget(is_alive=effect.is_alive)

    def _start_launcher(self, effect: v.StartLauncher) -> None:
        self.launchers.start(effect)

    def _sample(self, effect: v.SampleLauncher) -> None:
        self.report(v.Sampled(effect.process, self.launchers.sample(effect.launcher)))

    def _start(self, effect: v.Start) -> None:
        child = self.children[effect.process]
        unfit = None if self._fit == effect.process else child.look()
        if unfit is None:
            child.start(effect.job_id, effect.metadata, self.trace_parent_of(effect.job_id))
        else:
            self.report(unfit)

    def _not_started(self, effect: v.NotStarted) -> None:
        job = self.callers.tickets[effect.number].job
        self.callers.not_started(effect)
        if job is not None and job.report is None and effect.number not in self.core.pool.job_queue.jobs:
            self.callers.withdrawn(effect.number)  # a reservation: no report follows

    def _publish(self, effect: v.Effect) -> None:
        assert isinstance(effect, Event)
        if isinstance(effect, ProcessEnded):
            self._keep(effect.report)
        self._events.publish(effect)
        if isinstance(effect, ProcessEnded):
            log_end(effect.report)


def _ask(child: ChildClient, effect: v.Ask) -> None:
    child.send(m.Ask(effect.number, effect.topic, effect.job_id, effect.source), effect.body)


def _inform(child: ChildClient, effect: v.Inform) -> None:
    for topic, key, body in effect.news:
        child.send(m.News(topic, key, body is None), body or b"")


def _complain(text: str, what: object, error: Exception) -> None:
    """Log an error in a later turn of the event loop. A log handler of the program may itself be the cause."""
    extra = log_fields("internal_error")
    asyncio.get_running_loop().call_soon(partial(_logger.error, text, what, exc_info=error, extra=extra))


def _log(effect: v.Log) -> None:
    fields = dict(effect.fields)
    extra = log_fields(str(fields.pop("event")), **fields)
    _logger.log(effect.level, "%s", effect.text, extra=extra)


def _log_breach(effect: v.Breach) -> None:
    extra = log_fields("unexpected_event", who=effect.who, state=effect.state)
    _logger.debug("%s: %s cannot happen in state %s", effect.who, effect.event, effect.state, extra=extra)
