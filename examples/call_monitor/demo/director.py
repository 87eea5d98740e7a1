"""The course of the demo: start the worker, place the calls, watch them, end the worker."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from .api import TurnedDown, WorkerApi
from .killer import kill_some
from .memory import memory_of
from .options import DemoOptions
from .scene import Call, Scene
from .worker import Worker

LOOK_SECONDS = 0.2
MEASURE_SECONDS = 2.0
READY_SECONDS = 60.0

_SPURT = re.compile(r"(\+\d+) talked from ([\d.]+) to ([\d.]+) s")
_END = re.compile(
    r"process (?P<id>\S+) pid \d+(?: \(job \S+\))? (?P<outcome>\w+): (?P<reason>\w+) \((?P<detail>[^)]*)\)"
)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stage(Protocol):
    """Where the demo is shown."""

    def show(self, scene: Scene) -> None:
        """Here is the latest; called a few times a second."""

    def note(self, remark: str) -> None:
        """Something out of the ordinary has happened."""

    def call_changed(self, call: Call) -> None:
        """A call has started, or ended."""


@dataclass(frozen=True)
class Ending:
    """What the closing table is made of."""

    scene: Scene
    worker_exit_code: int
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """The demo's own: not 0 if something of Greenroom failed, which a killed call is not."""
        if self.interrupted:
            return 130
        return 1 if self.scene.of_fate("lost") or self.worker_exit_code != 0 else 0


class Director:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, stage: Stage) -> None:
        self._options = options
        self._stage = stage
        calls = [Call(f"+1555{100 + number:04d}", seconds) for number, seconds in enumerate(options.lengths())]
        self.scene = Scene(calls, stage.note)

    @property
    def _shortest(self) -> float:
        """How long the shortest call takes, by the clock."""
        return min(call.seconds for call in self.scene.calls) / self._options.speed

    async def run(self) -> Ending:
        """Run it to its end, or to a signal. Raises :class:`WorkerFailed`."""
        interrupt = asyncio.Event()
        for signum in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, interrupt.set)
        worker = await Worker.start(self._options, self._read_line)
        finished = False
        try:
            finished = await _unless(interrupt, self._calls_through(worker))
        finally:
            exit_code = await worker.stop(at_once=not finished)
        return Ending(self.scene, exit_code, interrupted=not finished)

    async def _calls_through(self, worker: Worker) -> None:
        async with WorkerApi(await worker.url()) as api:
            await self._warm(worker, api)
            tasks = [asyncio.create_task(self._place(api, call)) for call in self.scene.calls]
            tasks.append(asyncio.create_task(self._measure()))
            if self._options.kill:
                tasks.append(asyncio.create_task(kill_some(self.scene, api, self._shortest)))
            try:
                await self._watch(api)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _warm(self, worker: Worker, api: WorkerApi) -> None:
        """Wait until the worker has its idle processes, or say why it has not."""
        give_up = time.monotonic() + READY_SECONDS
        while not self.scene.pool or self.scene.pool["idle"] < self._options.idle:
            if time.monotonic() > give_up:
                raise worker.failure("its processes did not become warm")
            try:
                self.scene.look(await api.pool())
            except aiohttp.ClientError as error:
                raise worker.failure(str(error)) from error
            self._stage.show(self.scene)
            await asyncio.sleep(LOOK_SECONDS / 4)
        self._stage.note(f"worker {worker.pid} is ready: {self.scene.pool['idle']} idle processes")

    async def _place(self, api: WorkerApi, call: Call) -> None:
        wishes = {"caller": call.caller, "speed": self._options.speed, "seconds": call.seconds}
        try:
            call.answered(await api.place(wishes), time.monotonic())
        except (TurnedDown, aiohttp.ClientError, TimeoutError) as error:
            call.failed(f"it was not started: {error}")
        self._stage.call_changed(call)

    async def _watch(self, api: WorkerApi) -> None:
        while not self.scene.is_over:
            try:
                for call in self.scene.look(await api.pool()):
                    await self._look_up(api, call)
            except (aiohttp.ClientError, TimeoutError) as error:
                self._lose_all(f"the worker does not answer: {error}")
            self._stage.show(self.scene)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_up(self, api: WorkerApi, call: Call) -> None:
        """Its process is gone: how did it end?"""
        assert call.id is not None
        try:
            job = await api.job(call.id)
        except TurnedDown as error:
            call.failed(f"the worker does not know the call: {error}")
        else:
            if job["report"] is None:
                return  # it was started since the pool was looked at
            call.ended(job["report"])
        self._stage.call_changed(call)

    def _lose_all(self, trouble: str) -> None:
        for call in self.scene.calls:
            if not call.is_over:
                call.failed(trouble)
                self._stage.call_changed(call)

    async def _measure(self) -> None:
        """Look at the memory of the running calls from time to time."""
        while True:
            await asyncio.sleep(min(MEASURE_SECONDS, self._shortest / 4))
            self.scene.image = memory_of(self.scene.pool.get("zygote_pid") or 0) or self.scene.image
            for call in self.scene.running():
                if call.pid is not None and (memory := memory_of(call.pid)):
                    call.measured(memory)
                await asyncio.sleep(0)

    def _read_line(self, line: str) -> None:
        """A line of the worker's log: the calls' own, and what the pool says of a process."""
        if found := _SPURT.search(line):
            self.scene.talked(found[1], float(found[2]), float(found[3]))
        elif found := _END.search(line):
            light = self.scene.put_out(found["id"], found["outcome"], found["reason"])
            if light is not None and light.state == "killed" and light.job_id is None:
                self._stage.note(f"process {light.pid} {found['outcome']}, {found['reason']}: {found['detail']}")


async def _unless(interrupt: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do it, unless interrupted first; returns whether it was done."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(interrupt.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait([working])
    return False
