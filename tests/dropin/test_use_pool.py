"""Greenroom's pool in the place of LiveKit's: what LiveKit's own pool has to stand, this one has to."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dropin_stage import Events, Notes, load_agent, make_pool, running_job
from support import DEADLINE, eventually, kill, listening, wait_for_file, zygote_pid

from greenroom import AppLoadError, LaunchError, NoCapacity, OptionError
from greenroom.pool.events import BreakerChanged, MemorySampled

Agent = tuple[ModuleType, Notes]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    proc_pool = pytest.importorskip("livekit.agents.ipc.proc_pool")  # here: it takes seconds of CPU
    from greenroom.integrations.livekit import use_pool

    stock = proc_pool.ProcPool
    use_pool()
    yield from load_agent(tmp_path)
    proc_pool.ProcPool = stock


@asynccontextmanager
async def started(module: ModuleType, **arguments: Any) -> AsyncIterator[tuple[Any, Events]]:
    pool = make_pool(module, **arguments)
    events = Events(pool)
    try:
        await pool.start()
        yield pool, events
    finally:
        await pool.aclose()


def idle(pool: Any) -> int:
    return pool._pool.stats().idle


async def test_it_warms_serves_refills_and_closes(agent: Agent) -> None:
    module, _ = agent
    async with started(module, num_idle_processes=2) as (pool, events):
        ready = await events.wait_for("process_ready", 2)
        assert set(events.of("process_created")) >= set(events.of("process_started")) >= set(ready)
        assert all(executor.running_job is None and executor.pid for executor in ready)
        assert idle(pool) == 2
        await check_two_launches(pool, events, agent[1])
        assert not events.of("process_closed")
        await check_lower_target(pool, events)
        idle_ones = [executor for executor in pool.processes if not executor.running_job]
        for executor in idle_ones:
            os.kill(executor.pid, 0)
    await events.wait_for("process_closed", len(events.of("process_created")))
    assert set(idle_ones) <= set(events.of("process_closed"))
    assert not any(Path(f"/proc/{executor.pid}").exists() for executor in idle_ones)
    assert pool.processes == []


async def check_two_launches(pool: Any, events: Events, notes: Notes) -> None:
    first, second = running_job("stay"), running_job("stay")
    await asyncio.gather(pool.launch_job(first), pool.launch_job(second))
    await events.wait_for("process_job_launched", 2)
    lines = await notes.wait_for("start", 2)
    assert {line[2] for line in lines} == {first.job.room.name, second.job.room.name}
    assert pool.get_by_job_id(first.job.id).running_job is first
    await eventually(lambda: idle(pool) == 2, "refill")
    assert len([executor for executor in pool.processes if executor.running_job]) == 2


async def check_lower_target(pool: Any, events: Events) -> None:
    """It ends no warm process."""
    pool.set_target_idle_processes(0)
    await pool.launch_job(running_job("stay"))
    pool.set_target_idle_processes(0)
    assert idle(pool) in (1, 2)  # the refill may have become warm before the job had started
    pool.set_target_idle_processes(2)
    await eventually(lambda: idle(pool) == 2, "the target again")
    assert not events.of("process_closed")


@pytest.mark.more
async def test_ten_jobs_that_never_end_start_on_three_idle_processes(agent: Agent) -> None:
    module, notes = agent
    async with started(module, num_idle_processes=3) as (pool, _):
        for count in range(1, 11):
            await pool.launch_job(running_job("stay"))
            await notes.wait_for("start", count)
        assert len({line[1] for line in notes.of("start")}) == 10


@pytest.mark.more
async def test_slow_initialisation_is_ended_and_tried_again(agent: Agent) -> None:
    async with started(agent[0], initialize_process_fnc=agent[0].setup_slow, initialize_timeout=1.0) as (_, events):
        closed = await events.wait_for("process_closed", 2)
        assert all(executor.running_job is None for executor in closed)
        assert not events.of("process_ready")


@pytest.mark.more
async def test_failing_initialisation_is_told_with_its_cause(agent: Agent) -> None:
    async with started(agent[0], initialize_process_fnc=agent[0].setup_failing) as (pool, events):
        await events.wait_for("process_closed", 3)
        await eventually(lambda: pool._pool.stats().breaker_open, "the breaker to open")
        info = running_job()
        with pytest.raises(NoCapacity, match="no database"):
            await pool.launch_job(info)
        (told,) = [executor for executor in events.of("process_closed") if executor.running_job is info]
        assert told.status.name == "FAILED"  # which the worker passes on to the server


@pytest.mark.more
async def test_a_job_that_waits_learns_why_no_process_becomes_warm(agent: Agent) -> None:
    """Long before the time is over that LiveKit's pool would give each of three processes."""
    arguments = {"initialize_process_fnc": agent[0].setup_failing, "initialize_timeout": 1000.0}
    async with started(agent[0], num_idle_processes=0, **arguments) as (pool, events):
        info = running_job()
        launch = asyncio.create_task(pool.launch_job(info))
        await eventually(lambda: pool.get_by_job_id(info.job.id), "acceptance")
        executor = pool.get_by_job_id(info.job.id)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(LaunchError, match="no database"):
                await launch
            await executor.join()
        assert executor.status.name == "FAILED"
        assert executor in events.of("process_closed")


async def test_a_job_that_waits_can_be_cancelled_and_one_that_has_just_started_is_not_given_up(agent: Agent) -> None:
    """A start is known on the pool's loop, and not yet on the worker's."""
    module, notes = agent
    async with started(module, num_idle_processes=0, initialize_process_fnc=module.setup_gated) as (pool, _):
        cancelled = running_job("stay")
        launch = asyncio.create_task(pool.launch_job(cancelled))
        await eventually(lambda: pool.get_by_job_id(cancelled.job.id), "acceptance")
        await pool.get_by_job_id(cancelled.job.id).aclose()
        with pytest.raises(Exception, match="never started"):
            await launch
        assert not [executor for executor in pool.processes if executor.running_job]

        info = running_job("stay")
        launch = asyncio.create_task(pool.launch_job(info))
        await eventually(lambda: pool.get_by_job_id(info.job.id), "acceptance")
        executor = pool.get_by_job_id(info.job.id)
        await eventually(executor._is_settled.is_set, "acceptance by the pool")
        notes.open_gate()
        hold_loop_until(lambda: notes.of("start"))
        assert not executor.started
        pool._on_event(BreakerChanged(is_open=True, cause="no database"))
        await launch
        await executor.aclose()
        assert executor.status.name == "SUCCESS"
        assert notes.of("callback") == [[info.job.id, "parent", "process", "shutdown"]]
        assert [line[0] for line in notes.of("start")] == [info.job.id]


def hold_loop_until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


async def test_nothing_is_read_of_proc_on_the_workers_event_loop(agent: Agent) -> None:
    """It has the rooms' connections to serve. The pool looks at its processes on a loop of its own."""
    readers: set[int] = set()
    samples: list[object] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith("/proc/"):
            readers.add(threading.get_native_id())

    with audited(look):
        async with started(agent[0], memory_warn_mb=1.0) as (pool, _):
            pool._pool.subscribe(lambda event: samples.append(event) if isinstance(event, MemorySampled) else None)
            await pool.launch_job(running_job("stay"))
            await eventually(lambda: len(samples) > 2, "samples of memory")
    assert readers
    assert threading.get_native_id() not in readers


_looks: list[Any] = []


@contextmanager
def audited(look: Any) -> Iterator[None]:
    if not _looks:  # a hook stays for good
        _looks.append(None)
        sys.addaudithook(lambda event, arguments: _looks[0](event, arguments) if _looks[0] else None)
    _looks[0] = look
    try:
        yield
    finally:
        _looks[0] = None


@pytest.mark.more
async def test_a_slow_shutdown_is_cut_off(agent: Agent) -> None:
    module, notes = agent
    async with started(module, close_timeout=1.0) as (pool, _):
        info = running_job("slow-callback")
        await pool.launch_job(info)
        await notes.wait_for("start")
        executor = pool.get_by_job_id(info.job.id)
        await executor.aclose()
        assert executor.status.name == "FAILED"


class Inferrer:
    async def do_inference(self, method: str, data: bytes) -> bytes | None:
        if method != "upper":
            raise RuntimeError(f"no method {method}")
        return data.upper()


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


ENDS = {
    "leave": "SUCCESS",
    "raise": "FAILED",
    "cancel": "FAILED",
    "die": "FAILED",
    "exit": "FAILED",
    "eat": "FAILED",  # more than the memory limit
    "infer": "SUCCESS",
    "log": "SUCCESS",
}


@pytest.mark.more
async def test_what_a_job_did_and_how_it_ended_is_told_as_it_was(agent: Agent) -> None:
    module, notes = agent
    jobs = {what: running_job(what) for what in ENDS}
    jobs["log"].job.agent_name = "greeter"
    jobs["mock"] = running_job("leave")
    jobs["mock"].fake_job = True  # it has no room, and gets LiveKit's mock of one
    with listening(Heard(), "agent") as heard:
        async with started(module, memory_limit_mb=350, inference_executor=Inferrer()) as (pool, events):
            for number, (what, info) in enumerate(jobs.items(), 1):
                launched = asyncio.create_task(pool.launch_job(info))
                executor = (await events.wait_for("process_job_launched", number))[-1]
                await executor.join()
                await launched
                assert executor.status.name == ENDS.get(what, "SUCCESS"), what
                assert events.of("process_closed")[-1] is executor
    assert [jobs["mock"].job.id, "done"] in notes.of("callback")
    assert notes.of("inferred")[0][1] == "b'ABC'"
    assert "no method nothing" in " ".join(notes.of("failed")[0])
    check_record(heard.records, jobs["log"].job)


def check_record(records: list[logging.LogRecord], job: Any) -> None:
    """It keeps the name of its logger and its fields."""
    (record,) = records
    assert (record.name, record.getMessage(), record.levelname) == ("agent.calls", "hello", "INFO")
    told = vars(record)
    assert (told["count"], told["caller"]) == (1, "Ada")
    assert (told["job_id"], told["room"], told["room_id"]) == (job.id, job.room.name, "RM_1")
    assert (told["agent_name"], told["pid"] > 0) == ("greeter", True)
    assert not {"fields", "labels", "app_logger"} & told.keys()


@pytest.mark.more
async def test_a_lost_zygote_is_replaced_by_one_that_finds_the_functions_again(agent: Agent) -> None:
    """One of them through the server that holds it. At the end jobs have LiveKit's whole sequence."""
    module, notes = agent
    setup = module.server_of_lambdas._setup_fnc
    async with started(module, initialize_process_fnc=setup) as (pool, _):
        jobs = [running_job("stay"), running_job("stay")]
        await pool.launch_job(jobs[0])
        lost = zygote_pid(pool._pool)
        kill(lost)
        await eventually(lambda: pool._pool.stats().zygote_pid not in (None, lost), "another zygote")
        await pool.launch_job(jobs[1])
        await notes.wait_for("start", 2)
        executors = [executor for executor in pool.processes if executor.running_job]
        assert len(executors) == 2
        await asyncio.gather(pool.aclose(), pool.aclose())  # and once more at the end of the block
        assert pool.processes == []
    assert [executor.status.name for executor in executors] == ["SUCCESS", "SUCCESS"]
    ids = sorted(info.job.id for info in jobs)
    assert sorted(notes.of("session_end")) == [[job_id] for job_id in ids]
    assert sorted(notes.of("callback")) == [[job_id, "parent", "process", "shutdown"] for job_id in ids]


async def test_a_function_that_nobody_else_could_find_is_refused(agent: Agent) -> None:
    async def here(context: object) -> None: ...

    pool = make_pool(agent[0], job_entrypoint_fnc=here)
    with pytest.raises(AppLoadError, match=r"cannot find .*here.*job_entrypoint_fnc.*top level"):
        await pool.start()


async def test_a_pool_that_did_not_start_can_be_closed(agent: Agent) -> None:
    """LiveKit's command line closes its worker whatever became of it."""
    path = Path(agent[0].__file__ or "")
    pool = make_pool(agent[0])
    path.write_text("raise ValueError('no model')\n" + path.read_text())
    with pytest.raises(AppLoadError, match="no model"):
        await pool.start()
    await pool.aclose()


async def test_a_start_that_is_cancelled_leaves_nothing(agent: Agent) -> None:
    path = Path(agent[0].__file__ or "")
    loading = path.with_suffix(".loading")
    path.write_text(f"import time; open({str(loading)!r}, 'w').write('yes'); time.sleep(3600)\n" + path.read_text())
    pool = make_pool(agent[0])
    starting = asyncio.create_task(pool.start())
    await wait_for_file(loading)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await pool.aclose()


async def test_a_relay_that_cannot_be_opened_leaves_nothing(agent: Agent) -> None:
    pool = make_pool(agent[0])
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind("\0" + pool._relay.address)
        with pytest.raises(OSError, match="in use"):
            await pool.start()
    await pool.aclose()


async def test_threads_are_left_to_livekit_and_that_is_said(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    from livekit.agents.job import JobExecutorType

    pool = make_pool(agent[0], job_executor_type=JobExecutorType.THREAD)
    assert type(pool).__module__ == "livekit.agents.ipc.proc_pool"
    assert "job_executor_type is THREAD" in caplog.text
    assert "use_pool() has no effect" in caplog.text


def test_options_that_the_server_decides_are_refused(agent: Agent) -> None:
    from greenroom.integrations.livekit import use_pool

    with pytest.raises(OptionError, match="job_memory_limit_mb"):
        use_pool(memory_limit_mb=100)
    with pytest.raises(OptionError, match="did you mean stall_timeout"):
        use_pool(stal_timeout=5)
