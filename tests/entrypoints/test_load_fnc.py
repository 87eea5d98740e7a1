"""LiveKit's ``load_fnc`` and worker events in a resident process: what the app's functions find there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import AgentServer
from livekit.protocol import agent, models
from livekit_orders import notes_of, order

from greenroom import ProcessPool
from greenroom.integrations.livekit.agent.load_function import HIGHEST, LoadError, LoadFunction, checked
from greenroom.integrations.livekit.job_order import JOB, LOAD, STARTED, WORKER, Acceptance, Order
from greenroom.integrations.livekit.job_source.load_report import AppLoad
from greenroom.pool.resident_client import NoAnswer

MakeAgent = Callable[[str], Path]


# --- what is a load -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "load"),
    [
        (0, 0.0),
        (0.25, 0.25),
        (7, 7.0),
        (True, 1.0),
        (False, 0.0),
        (Fraction(1, 4), 0.25),
        (math.inf, HIGHEST),
        (10**400, HIGHEST),
    ],
)
def test_a_load_is_a_number(value: object, load: float) -> None:
    assert checked(value) == load


class Broken:
    def __float__(self) -> float:
        raise RuntimeError("no gauge")

    def __repr__(self) -> str:
        raise RuntimeError("no name")


async def later() -> float:
    return 0.5


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (math.nan, "it returned nan"),
        (-0.01, "it returned -0.01"),
        (-math.inf, "it returned -inf"),
        (-(10**400), "it returned -1000"),
        ("0.5", "it returned '0.5', which is no number"),
        (b"1", "no number"),
        (None, "it returned None, which is no number"),
        ([0.5], "no number"),
        (1j, "no number"),
        (Broken(), "it returned a Broken whose __repr__ raised RuntimeError, which is no number"),
        (later(), "it is async"),
    ],
)
def test_anything_else_is_named(value: object, cause: str) -> None:
    with pytest.raises(LoadError) as caught:
        checked(value)
    assert cause in str(caught.value)
    assert len(str(caught.value)) < 200


async def test_a_function_is_called_with_the_server_if_it_takes_anything() -> None:
    server = object()

    class Gauge:
        def __call__(self, worker: object) -> float:
            return 0.25 if worker is server else 1.0

    for function, load in (
        (lambda: 0.5, 0.5),
        (lambda worker: 0.5 if worker is server else 1.0, 0.5),
        (lambda worker=None: 0.5 if worker is server else 1.0, 0.5),
        (lambda *all: len(all) / 4, 0.25),
        (Gauge(), 0.25),
    ):
        assert await LoadFunction(function, server).evaluate() == load


async def test_calls_for_which_nobody_waits_do_not_pile_up() -> None:
    calls, gate = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def function() -> float:
        calls.append(None)
        if len(calls) == 1:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return len(calls) / 10

    load = LoadFunction(function, None)
    hung = [asyncio.create_task(load.evaluate()) for _ in range(20)]
    while not calls:
        await asyncio.sleep(0)
    for one in hung:
        one.cancel()
    await asyncio.wait(hung)
    gate.set()
    assert await load.evaluate() == 0.2
    assert len(calls) == 2


# --- as LiveKit's worker judges -------------------------------------------------------------------


@given(
    value=st.floats(0, 3),
    threshold=st.one_of(st.none(), st.floats(0.1, 2)),
    active=st.integers(0, 5),
    reserved=st.integers(0, 5),
    idle=st.integers(0, 4),
)
def test_a_load_is_full_when_livekits_worker_would_be(
    value: float, threshold: float | None, active: int, reserved: int, idle: int
) -> None:
    load = AppLoad(value, threshold, active, reserved, idle)
    limit = math.inf if threshold is None else threshold
    server: Any = AgentServer(load_threshold=limit, num_idle_processes=idle)
    server._devmode = server._draining = False
    server._worker_load, server._reserved_slots = value, reserved
    server._proc_pool = SimpleNamespace(processes=[SimpleNamespace(running_job=object())] * active)
    assert load.effective == server._get_effective_load()
    assert load.is_full == (not server._is_available())


# --- in the resident process ----------------------------------------------------------------------

LOOKING = """
server = AgentServer(load_threshold=0.5)
seen = []

def load(worker):
    assert worker is server
    jobs = worker.active_jobs
    for job in jobs:
        seen.append((job.job.id, job.job.room.name, job.accept_arguments.identity, job.url, job.fake_job))
    note("load", worker.id, len(jobs), worker._reserved_slots, *[one.job.id for one in jobs])
    try:
        worker.update_options(max_retry=3)
    except RuntimeError as error:
        note(error)
    return len(jobs) / 10

server.load_fnc = load

@server.on("worker_started")
def started():
    asyncio.get_running_loop().create_task(after())

async def after():
    note("started")

@server.on("worker_registered")
def registered(worker_id, info):
    note("registered", worker_id, server.id, type(info).__name__, info.region)
    raise LookupError("its own fault")

@server.once("worker_registered")
def first(worker_id, info):
    note("first", worker_id)

@server.rtc_session(on_request=None)
async def entrypoint(ctx: JobContext): ...
"""


def registration(worker_id: str) -> bytes:
    info = models.ServerInfo(region="eu")
    data: bytes = agent.RegisterWorkerResponse(worker_id=worker_id, server_info=info).SerializeToString()
    return data


async def test_functions_find_the_worker_as_livekit_shows_it(make_agent: MakeAgent) -> None:
    app = make_agent(LOOKING)
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        assert pool.manifest["livekit"]["load_threshold"] == 0.5
        resident = pool.resident
        resident.set_news(WORKER, STARTED, b"")
        resident.set_news(WORKER, "a server", registration("AW_1"))
        resident.set_news(JOB, "AJ_1", Order.decode(order(accept=Acceptance(identity="ada"))).encode())
        assert await resident.ask(LOAD, {"reserved": 2}, timeout=60) == 0.1
        resident.drop_news(WORKER, "a server")
        resident.set_news(WORKER, "a server", registration("AW_2"))
        resident.drop_news(JOB, "AJ_1")
        assert await resident.ask(LOAD, {"reserved": 0}, timeout=60) == 0
    notes = notes_of(app)
    notes.remove("started")  # in a task that its handler has made, at whatever moment
    assert notes == [
        "registered AW_1 AW_1 ServerInfo eu",
        "first AW_1",
        "load AW_1 1 2 AJ_1",
        "cannot update options after starting the server",
        "registered AW_2 AW_2 ServerInfo eu",
        "load AW_2 0 0",
        "cannot update options after starting the server",
    ]


@pytest.mark.parametrize("method", ["zygote", pytest.param("spawn", marks=pytest.mark.more)])
async def test_functions_of_the_main_block_are_handed_over(make_agent: MakeAgent, method: str) -> None:
    source = """
async def entrypoint(ctx: JobContext): ...
def load(): return 0.25
def registered(worker_id): note("registered", worker_id)

if __name__ == "__main__":
    server = AgentServer(load_fnc=load, load_threshold=0.3)
    server.rtc_session(entrypoint)
    server.on("worker_registered", registered)
    cli.run_app(server)
"""
    app = make_agent(source)
    async with ProcessPool(str(app), num_idle_processes=1, start_method=method) as pool:
        assert pool.manifest["livekit"]["load_threshold"] == 0.3
        assert pool.manifest["livekit"]["without_effect"] == []
        pool.resident.set_news(WORKER, "a server", registration("AW_1"))
        assert await pool.resident.ask(LOAD, {}, timeout=60) == 0.25
    assert notes_of(app) == ["registered AW_1"]


async def test_a_traceback_is_logged_once_for_a_function_that_raises(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
async def entrypoint(ctx: JobContext): ...
server = AgentServer(load_fnc=lambda: 1 / 0)
server.rtc_session(entrypoint)
"""
    async with ProcessPool(str(make_agent(source)), num_idle_processes=1) as pool:
        for _ in range(3):
            with pytest.raises(NoAnswer, match=r"it raised ZeroDivisionError: division by zero \(.*, line \d+\)"):
                await pool.resident.ask(LOAD, {}, timeout=60)
    assert caplog.text.count("load_fnc failed") == 1
