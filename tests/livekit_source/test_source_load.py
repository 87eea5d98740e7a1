"""The app's ``load_fnc`` decides about the worker's load, as under LiveKit's own worker; and what it does wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dispatcher import Dispatcher, Line, a_job
from livekit.protocol import agent
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

AVAILABLE, FULL = agent.WS_AVAILABLE, agent.WS_FULL
KINDS = ("livekit", "greenroom")


async def expect_load(line: Line, status: int, load: float) -> None:
    """Wait for this status from now on."""
    line.messages.clear()
    await line.status(lambda one: (one.status, round(one.load, 3)) == (status, load))


# --- alike under both workers ---------------------------------------------------------------------


@asynccontextmanager
async def capped(kind: str, gates: Path) -> AsyncIterator[tuple[Line, StockWorker | RunningWorker]]:
    """The same agent under one of the workers, registered."""
    async with Dispatcher() as dispatcher:
        mine = {"GATES": str(gates), **dispatcher.environment}
        worker: StockWorker | RunningWorker
        if kind == "livekit":
            worker = StockWorker(dispatcher, AGENTS / "capped.py", environment=mine)  # type: ignore[arg-type]
        else:
            worker = RunningWorker(str(AGENTS / "capped.py"), env={**os.environ, **mine})
        async with worker:
            line = await dispatcher.line()
            await line.registers("AW_7")
            yield line, worker


async def run(line: Line, *rooms: str) -> None:
    for room in rooms:
        assert (await line.offer(a_job(f"AJ_{room}", room=room))).available, room
        await line.assign(a_job(f"AJ_{room}", room=room))


@pytest.mark.night
@pytest.mark.parametrize("kind", KINDS)
async def test_a_load_function_caps_the_worker(kind: str, tmp_path: Path) -> None:
    """It sees each job as LiveKit's info of it. What is accepted counts, by the share of those that run."""
    async with capped(kind, tmp_path) as (line, worker):
        await worker.logs("the worker has started, and is unregistered")
        await worker.logs("the worker is registered: AW_7 AW_7 ServerInfo")
        await expect_load(line, AVAILABLE, 0.0)
        await run(line, "hall")
        await expect_load(line, AVAILABLE, 0.5)
        line.messages.clear()
        assert (await line.offer(a_job("AJ_attic", room="attic"))).available
        answer = await line.offer(a_job("AJ_cellar", room="cellar"))  # while the one before is not assigned yet
        assert (answer.available, answer.terminate) == (False, False)
        await expect_load(line, FULL, 0.5)
        await line.assign(a_job("AJ_attic", room="attic"))
        await expect_load(line, FULL, 1.0)
        assert not (await line.offer(a_job("AJ_garden", room="garden"))).available
        (tmp_path / "hall").touch()
        await expect_load(line, AVAILABLE, 0.5)
        await run(line, "porch")
        await expect_load(line, FULL, 1.0)
        for room in ("attic", "porch"):
            (tmp_path / room).touch()
        await expect_load(line, AVAILABLE, 0.0)


# --- the worker's events --------------------------------------------------------------------------


@pytest.mark.night
async def test_handlers_are_called_in_each_resident_process(tmp_path: Path) -> None:
    """After a lost connection with the new id; and in a process that takes the place of another, which has none."""
    path = tmp_path / "agent.py"
    path.write_text((AGENTS / "capped.py").read_text())
    async with Dispatcher() as dispatcher:
        environment = {**os.environ, "GATES": str(tmp_path), **dispatcher.environment}
        async with RunningWorker(str(path), env=environment) as worker:
            await (await dispatcher.line()).ready("AW_1")
            await worker.logs("is registered: AW_1")
            line = dispatcher_line = await drop_and_return(dispatcher, worker)
            await worker.logs("is registered: AW_2")
            assert len([one for one in worker.lines if "the worker has started" in one]) == 1
            os.kill(await resident_of(worker), signal.SIGKILL)
            await worker.logs("the worker has started", count=2)
            await worker.logs("is registered: AW_2 AW_2", count=2)
            await run(line, "hall")
            await expect_load(line, AVAILABLE, 0.5)
            path.write_text(path.read_text().replace("return len(jobs) / 2", "return len(jobs) / 4"))
            worker.signal(signal.SIGHUP)
            await worker.logs("the worker has started", count=3)
            await worker.logs("is registered: AW_2 AW_2", count=3)
            await expect_load(dispatcher_line, AVAILABLE, 0.25)  # the new code knows of the job that runs
            (tmp_path / "hall").touch()
            await expect_load(dispatcher_line, AVAILABLE, 0.0)


async def drop_and_return(dispatcher: Dispatcher, worker: RunningWorker) -> Line:
    """Break the worker's connection; return the next one, on which it is ``AW_2``."""
    await dispatcher.stop()
    await dispatcher.start()
    return await (await dispatcher.line()).ready("AW_2")


async def resident_of(worker: RunningWorker) -> int:
    processes = (await worker.get("/v1/pool")).body["processes"]
    (pid,) = [one["pid"] for one in processes if one["state"] == "resident"]
    return int(pid)


# --- what a load function does wrong --------------------------------------------------------------

MOODY = """
import ctypes, os, signal, sys, time
from pathlib import Path
from livekit.agents import AgentServer, JobContext, JobRequest

MOOD = Path(__file__).with_name("mood")

def load():
    mood = MOOD.read_text()
    if mood == "raise":
        raise ValueError("no such gauge")
    while mood == "hang" and MOOD.read_text() == mood:
        time.sleep(0.05)
    if mood == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mood == "hold":
        ctypes.PyDLL(None).sleep(3600)
    return eval(mood) if mood != "hang" else 0.5

async def wrong(): return 0.5

server = AgentServer(load_fnc=load, load_threshold=0.9, num_idle_processes=1)

async def on_request(request: JobRequest) -> None:
    await request.accept(name="Moody")

@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext): ...
"""


ONE = ("--num-idle-processes", "1", "--max-idle-processes", "1")


class Moody:
    def __init__(self, line: Line, worker: RunningWorker, mood: Path) -> None:
        self.line = line
        self.worker = worker
        self._mood = mood
        self._numbers = iter(range(1000))

    def turns(self, mood: str) -> None:
        """Have the function do something else from now on."""
        new = self._mood.with_suffix(".new")
        new.write_text(mood)
        new.replace(self._mood)

    async def fails(self, *causes: str, count: int = 1) -> None:
        for cause in causes:
            await self.worker.logs(rf"WARNING .*load_fnc gives no load: .*{cause}", count=count)

    def complaints(self) -> int:
        return sum("load_fnc gives no load" in line for line in self.worker.lines)

    async def accepts(self) -> None:
        """An offer is accepted, by the app's request hook. One that a lost process had is not."""

        async def is_accepted() -> bool:
            answer = await self.line.offer(a_job(f"AJ_{next(self._numbers)}"))
            return answer.available and answer.participant_name == "Moody"

        while not await is_accepted():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def moody(tmp_path: Path, mood: str = "0.2", *options: str, source: str = MOODY) -> AsyncIterator[Moody]:
    path = tmp_path / "agent.py"
    path.write_text(source)
    path.with_name("mood").write_text(mood)
    async with Dispatcher() as dispatcher:
        environment = {**os.environ, **dispatcher.environment}
        async with RunningWorker(
            str(path), "--num-idle-processes", "1", "--max-idle-processes", "1", *options, env=environment
        ) as worker:
            line = await dispatcher.line()
            await line.registers()
            yield Moody(line, worker, path.with_name("mood"))


@pytest.mark.more
@pytest.mark.parametrize(
    ("mood", "cause"),
    [
        ("raise", r"it raised ValueError: no such gauge \(.*agent.py, line \d+\)"),
        ("float('nan')", "it returned nan; a load is 0 or more, and 1 is full"),
        ("-0.25", "it returned -0.25"),
        ("'0.5'", "it returned '0.5', which is no number"),
        ("None", "it returned None, which is no number"),
        ("wrong()", "it is async"),
        ("hang", r"it did not answer within 2.5 s"),
    ],
)
async def test_a_function_that_gives_no_load_is_told_once_and_greenrooms_load_takes_its_place(
    tmp_path: Path, mood: str, cause: str
) -> None:
    async with moody(tmp_path) as scene:
        await expect_load(scene.line, AVAILABLE, 0.2)
        scene.turns(mood)
        await scene.fails(cause)
        await expect_load(scene.line, AVAILABLE, 0.0)
        await scene.accepts()
        pressure = (await scene.worker.get("/pressure")).body["sources"]["livekit"]
        assert pressure["load_fnc"]["load"] is None
        assert pressure["load_fnc"]["threshold"] == 0.9
        assert pressure["load_fnc"]["problem"]
        scene.turns("0.95")
        await expect_load(scene.line, FULL, 0.95)
        assert not (await scene.line.offer(a_job("AJ_full"))).available
        await scene.worker.logs("load_fnc gives a load again")
        assert scene.complaints() == 1
        scene.turns(mood)
        await scene.fails(cause, count=2)
        assert scene.complaints() == 2


@pytest.mark.night
@pytest.mark.parametrize(
    ("mood", "status", "load"),
    [("True", FULL, 1.0), ("False", AVAILABLE, 0.0), ("0", AVAILABLE, 0.0), ("float('inf')", FULL, 1e6)],
)
async def test_numbers_of_other_kinds_are_loads(tmp_path: Path, mood: str, status: int, load: float) -> None:
    async with moody(tmp_path, mood) as scene:
        await expect_load(scene.line, status, load)
        assert scene.complaints() == 0


@pytest.mark.night
@pytest.mark.parametrize("mood", ["crash", "hold"])
async def test_a_function_that_costs_its_process_costs_offers_no_more_than_that(tmp_path: Path, mood: str) -> None:
    """It crashes, or holds the GIL: the process is replaced, and asked about offers as before."""
    async with moody(tmp_path) as scene:
        await expect_load(scene.line, AVAILABLE, 0.2)
        before = await resident_of(scene.worker)
        scene.turns(mood)
        await scene.fails("it has no process" if mood == "crash" else "did not answer within 2.5 s")
        await scene.worker.logs(rf"pid {before} killed: (signaled|request_timeout)")
        scene.turns("0.4")
        for _ in range(3):
            await scene.accepts()
        await expect_load(scene.line, AVAILABLE, 0.4)
        assert await resident_of(scene.worker) != before


@pytest.mark.night
async def test_a_function_that_takes_its_time_holds_up_no_other_question(tmp_path: Path) -> None:
    """As ``psutil.cpu_percent(interval=0.5)`` does."""
    source = MOODY.replace("    mood = MOOD.read_text()\n", "    time.sleep(0.5)\n    mood = MOOD.read_text()\n")
    async with moody(tmp_path, source=source) as scene:
        await expect_load(scene.line, AVAILABLE, 0.2)
        await asyncio.gather(*(scene.accepts() for _ in range(5)))
        assert scene.complaints() == 0


@pytest.mark.more
async def test_a_reload_brings_the_threshold_and_may_take_the_function_away(tmp_path: Path) -> None:
    async with moody(tmp_path, "0.8") as scene:
        path = tmp_path / "agent.py"
        await expect_load(scene.line, AVAILABLE, 0.8)
        await scene.worker.logs(r"the worker takes its load from the app's load_fnc; load_threshold is 0.9")
        path.write_text(MOODY.replace("load_threshold=0.9", "load_threshold=0.75"))
        scene.worker.signal(signal.SIGHUP)
        await expect_load(scene.line, FULL, 0.8)
        path.write_text(MOODY.replace("load_fnc=load, load_threshold=0.9, ", ""))
        scene.worker.signal(signal.SIGHUP)
        await expect_load(scene.line, AVAILABLE, 0.0)
        assert (await scene.worker.get("/pressure")).body["sources"]["livekit"]["load_fnc"] is None
        await scene.worker.logs("reloaded", count=2)


async def test_what_is_turned_down_for_the_load_is_counted(tmp_path: Path) -> None:
    async with moody(tmp_path, "0.9") as scene:
        await expect_load(scene.line, FULL, 0.9)
        assert not (await scene.line.offer(a_job("AJ_1"))).available
        await scene.worker.logs("load_fnc returned 0.9.*load_threshold is 0.9")
        metrics = (await scene.worker.fetch("GET", "/metrics")).text
        assert 'greenroom_turned_down_total{reason="load",source="livekit"} 1.0' in metrics


@pytest.mark.night
@pytest.mark.parametrize("option", ["", "load_threshold=0.5, "])
async def test_an_app_without_a_function_has_no_process_for_it(tmp_path: Path, option: str) -> None:
    source = MOODY.replace("load_fnc=load, load_threshold=0.9, ", option).replace("on_request=on_request", "")
    async with moody(tmp_path, source=source) as scene:
        await expect_load(scene.line, AVAILABLE, 0.0)
        processes = (await scene.worker.get("/v1/pool")).body["processes"]
        assert [one["state"] for one in processes] == ["idle"]
        if option:
            await scene.worker.logs(r"AgentServer\(load_threshold=...\) has no effect: it limits the result of a load")


@pytest.mark.night
async def test_in_dev_no_load_is_too_much(tmp_path: Path) -> None:
    """By LiveKit's default; an app's own threshold holds in both."""
    source = MOODY.replace(", load_threshold=0.9", "")
    path = tmp_path / "agent.py"
    path.write_text(source)
    path.with_name("mood").write_text("1.0")
    for command, status in (("dev", AVAILABLE), ("start", FULL)):
        async with Dispatcher() as dispatcher:
            environment = {**os.environ, **dispatcher.environment}
            async with RunningWorker(str(path), command=command, env=environment) as worker:
                line = await dispatcher.line()
                await line.registers()
                await expect_load(line, status, 1.0)
                worker.signal(signal.SIGTERM)
                await worker.ends()
