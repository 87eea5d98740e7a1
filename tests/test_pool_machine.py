"""Any order of whatever can be done to a pool, with real processes: what must hold then, and at rest."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import DEADLINE, eventually

from greenroom import Accept, GreenroomError, Job, JobHandle, LaunchError, NoCapacity, ProcessPool
from greenroom.pool.events import Event, JobAccepted, JobEnded, JobStarted, ProcessChanged
from greenroom.pool.handles import Reservation

T = TypeVar("T")

MAX_JOBS = 5
APP = """
import asyncio, os, signal
import greenroom

app = greenroom.App()

@app.request
async def request(request):
    if request.job.metadata == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return request.job.metadata != "no"

@app.entrypoint
async def entrypoint(ctx):
    fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{ctx.job.id} {os.getpid()}\\n".encode())
    os.close(fd)
    if ctx.job.metadata == "stay":
        await ctx.wait_for_shutdown()
"""

picks = st.integers(0, 9)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Path(self.folder.name, "ledger")
        app = Path(self.folder.name, "agent.py")
        app.write_text(f"LEDGER = {str(self.ledger)!r}\n{APP}")
        self.pool = ProcessPool(
            f"{app}:app", num_idle_processes=2, max_idle_processes=2, max_jobs=MAX_JOBS, idle_ttl=0.2
        )
        self.reservations: list[Reservation] = []
        self.handles: list[JobHandle] = []
        self.events: list[Event] = []
        self.number = 0
        self.idle_target = 2
        self.draining: asyncio.Task[None] | None = None
        self.pool.subscribe(self.events.append)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(2 * DEADLINE):
                return await work

        return self.runner.run(bounded())

    @initialize()
    def start(self) -> None:
        self.run(self.pool.start())

    # --- what is done to it ----------------------------------------------------------------------

    def _job(self, metadata: str) -> Job:
        self.number += 1
        return Job(f"job-{self.number}", metadata)

    @rule(metadata=st.sampled_from(["yes", "stay", "no", "crash"]), timeout=st.sampled_from([0.0, 5.0]))
    def reserve(self, metadata: str, timeout: float) -> None:
        async def reserve() -> None:
            # It may be turned down at any time; that this is not for ever is looked at in the end.
            with suppress(NoCapacity):
                self.reservations.append(await self.pool.reserve(self._job(metadata), timeout=timeout))

        self.run(reserve())

    @rule(pick=picks, is_awaited=st.booleans())
    def ask(self, pick: int, is_awaited: bool) -> None:
        reservation = _picked(self.reservations, pick)
        if reservation is None:
            return

        self.run(self._ask(reservation, is_awaited))

    @rule(metadata=st.sampled_from(["yes", "stay", "no", "crash"]), is_awaited=st.booleans())
    def offer(self, metadata: str, is_awaited: bool) -> None:
        async def offer() -> None:
            with suppress(NoCapacity):
                reservation = await self.pool.reserve(self._job(metadata), timeout=5.0)
                self.reservations.append(reservation)
                await self._ask(reservation, is_awaited)

        self.run(offer())

    async def _ask(self, reservation: Reservation, is_awaited: bool) -> None:
        asking = asyncio.create_task(reservation.ask())
        if not is_awaited:
            await asyncio.sleep(0)
            asking.cancel()  # as by a client that hangs up
        (verdict,) = await asyncio.gather(asking, return_exceptions=True)
        if not isinstance(verdict, (Accept, GreenroomError)):  # GreenroomError: it was asked before
            self.reservations.remove(reservation)

    @rule(pick=picks, metadata=st.sampled_from([None, "stay", "go"]))
    def order(self, pick: int, metadata: str | None) -> None:
        reservation = _picked(self.reservations, pick)
        if reservation is None:
            return
        self.reservations.remove(reservation)

        async def order() -> None:
            try:
                self.handles.append(reservation.launch(metadata))
            except LaunchError:
                assert reservation.pid is None  # its process was lost, too many times

        self.run(order())

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        reservation = _picked(self.reservations, pick)
        if reservation is None:
            return
        self.reservations.remove(reservation)
        self.run(_now(lambda: reservation.release("not wanted")))

    @rule(metadata=st.sampled_from(["stay", "go"]))
    def submit(self, metadata: str) -> None:
        async def submit() -> None:
            with suppress(NoCapacity):
                self.handles.append(self.pool.submit(self._job(metadata), timeout=DEADLINE))

        self.run(submit())

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        handle = _picked(self.handles, pick)
        if handle is not None:
            self.run(_now(lambda: handle.cancel("not wanted")))

    @rule(pick=picks, signum=st.sampled_from([signal.SIGKILL, signal.SIGSTOP]))
    def break_a_process(self, pick: int, signum: signal.Signals) -> None:
        at_rest = ("idle", "reserved") if signum == signal.SIGSTOP else ("idle", "reserved", "claimed", "running")
        pids = [process.pid for process in self.pool.processes if process.pid and process.state in at_rest]
        pid = _picked(pids, pick)
        if pid is not None:
            with suppress(ProcessLookupError):  # it has just died of something else
                os.kill(pid, signum)

    @rule()
    def kill_the_zygote(self) -> None:
        pid = self.pool.stats().zygote_pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @rule(idle=st.integers(1, 3))
    def resize(self, idle: int) -> None:
        self.idle_target = idle
        self.run(_now(lambda: self.pool.resize(idle, max_idle_processes=idle)))

    @precondition(lambda self: self.draining is None)
    @rule()
    def reload(self) -> None:
        async def reload() -> None:
            # A zygote or a process that was killed just now may be the new one: then the old code goes on.
            await asyncio.gather(self.pool.reload(), return_exceptions=True)

        self.run(reload())

    @rule(turns=st.integers(1, 30))
    def wait(self, turns: int) -> None:
        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0.001)

        self.run(wait())

    @precondition(lambda self: self.draining is None and self.number > 10)
    @rule()
    def drain(self) -> None:
        async def drain() -> None:
            self.draining = asyncio.create_task(self.pool.drain(DEADLINE))
            await asyncio.sleep(0)

        self.run(drain())

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def slots_are_counted(self) -> None:
        if self.number == 0:
            return
        jobs = self.pool.stats().jobs
        live = sum(handle.state != "ended" for handle in self.handles)
        assert live <= jobs <= min(MAX_JOBS, live + len(self.reservations))

    @invariant()
    def no_process_is_used_twice(self) -> None:
        assert all(process.job_id is None for process in self._processes() if process.state == "idle")
        started = Counter(event.process_id for event in self.events if isinstance(event, JobStarted))
        assert max(started.values(), default=0) <= 1
        again = [event for event in self.events if isinstance(event, ProcessChanged) and event.after == "idle"]
        assert {event.before for event in again} <= {"warming", "reserved"}

    def _processes(self) -> tuple[Any, ...]:
        return self.pool.processes if self.number else ()

    def teardown(self) -> None:
        try:
            self.run(self._come_to_rest())
        finally:
            self.run(self.pool.aclose(kill=True))
            self.runner.close()
            self.folder.cleanup()

    def _sessions(self) -> int:
        """Count the processes beside that of the request hook."""
        return sum(process.state != "resident" for process in self.pool.processes)

    async def _come_to_rest(self) -> None:
        for reservation in self.reservations:
            reservation.release("over")
        for handle in self.handles:
            handle.cancel("over")
        reports = [await handle.wait() for handle in self.handles]
        await eventually(lambda: self.pool.stats().jobs == self.pool.stats().waiting == 0, "no job, nothing reserved")
        if self.draining is not None:
            await self.draining
            assert not self.pool.processes
        else:
            await eventually(lambda: self.pool.stats().idle == self._sessions() == self.idle_target, "rest")
        assert "protocol_error" not in {report.reason for report in self.pool.recent_reports}
        await asyncio.sleep(0)  # for the events of this turn
        ids = Counter(handle.id for handle in self.handles)
        assert Counter(report.job_id for report in reports) == ids
        assert Counter(event.job_id for event in self.events if isinstance(event, JobAccepted)) == ids
        assert Counter(event.report.job_id for event in self.events if isinstance(event, JobEnded)) == ids
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        jobs, pids = zip(*map(str.split, lines), strict=True) if lines else ((), ())
        assert set(jobs) <= set(ids)
        assert max(Counter(jobs).values(), default=0) <= 1
        assert max(Counter(pids).values(), default=0) <= 1  # as long as no pid comes round again
        started = {report.job_id for report in reports if report.timings.started is not None}
        assert set(jobs) <= started


def _picked(things: list[T], pick: int) -> T | None:
    """One of them, if there is any. How many there are is a matter of time, and no condition that a rule can have."""
    return things[pick % len(things)] if things else None


async def _now(fn: Callable[[], object]) -> None:
    fn()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=8,  # the simulator lives ten thousand histories a minute; here is what only real processes show
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.generate,),
)
