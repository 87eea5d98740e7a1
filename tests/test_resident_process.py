"""What an integration asks and tells in the resident process of an app."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually

from greenroom import ExitReport, ProcessPool
from greenroom.pool.resident_client import NoAnswer

MakeApp = Callable[[str], str]

APP = """
news = []

async def answer(question):
    kind = question["kind"]
    if kind == "news":
        return news
    if kind == "pid":
        return os.getpid()
    if kind == "raise":
        raise ValueError("no such gauge")
    if kind == "nonsense":
        return object()
    if kind == "hang":
        try:
            await asyncio.sleep(3600)
        finally:
            news.append(["cancelled"])
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return question

def hear(key, data):
    if data == "raise":
        raise ValueError("bad news")
    if data == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    news.append([key, data])

app.answers["gauge"] = answer
app.hears["room"] = hear

@app.entrypoint
async def entrypoint(ctx): ...
"""


def residents(pool: ProcessPool) -> list[int | None]:
    return [process.pid for process in pool.processes if process.state == "resident"]


async def resident_of(pool: ProcessPool) -> int:
    await eventually(lambda: bool(residents(pool)), "a resident process")
    (pid,) = residents(pool)
    assert pid is not None
    return pid


async def test_it_answers_and_what_it_cannot_answer_has_a_cause(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1) as pool:
        ask = pool.resident.ask
        assert pool.resident.takes("gauge")
        assert pool.resident.takes("room")
        assert not pool.resident.takes("other")
        assert await ask("gauge", {"kind": "echo", "n": 1}, timeout=60) == {"kind": "echo", "n": 1}
        pid = await ask("gauge", {"kind": "pid"}, timeout=60)
        assert [pid] == residents(pool)
        for kind, cause in (
            ("raise", "ValueError: no such gauge"),
            ("nonsense", "not plain data"),
        ):
            with pytest.raises(NoAnswer, match=cause) as caught:
                await ask("gauge", {"kind": kind}, timeout=60)
            assert not caught.value.was_lost
        with pytest.raises(NoAnswer, match=r"it did not answer within 0\.3 s"):
            await ask("gauge", {"kind": "hang"}, timeout=0.3)
        assert await ask("gauge", {"kind": "news"}, timeout=60) == [["cancelled"]]
        with pytest.raises(NoAnswer, match="does not answer 'other'"):
            await ask("other", timeout=60)
        with pytest.raises(NoAnswer, match="the app does not answer 'room'"):
            await ask("room", timeout=60)
        assert await ask("gauge", {"kind": "pid"}, timeout=60) == pid
        resident, waiting = pool.resident, asyncio.create_task(ask("gauge", {"kind": "hang"}, timeout=60))
        await asyncio.sleep(0)
    with pytest.raises(NoAnswer):
        await waiting
    with pytest.raises(NoAnswer, match="the pool is not open"):
        await resident.ask("gauge", timeout=60)
    resident.set_news("room", "a", 1)  # nothing, to nobody


async def test_one_that_takes_the_place_of_another_knows_what_is_true(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1) as pool:

        async def news() -> object:
            return await pool.resident.ask("gauge", {"kind": "news"}, timeout=60)

        tell = pool.resident.set_news
        first = await resident_of(pool)
        tell("room", "a", 1)
        tell("room", "b", {"x": [1]})
        tell("room", "a", 1)  # known
        tell("other", "c", 1)  # of no interest to this app
        assert await news() == [["a", 1], ["b", {"x": [1]}]]
        tell("room", "a", 2)
        pool.resident.drop_news("room", "b")
        pool.resident.drop_news("room", "b")
        tell("room", "c", "raise")
        assert await news() == [["a", 1], ["b", {"x": [1]}], ["a", 2], ["b", None]]
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: residents(pool) not in ([], [first]), "another resident process")
        assert await news() == [["a", 2]]
        await pool.reload()
        assert await news() == [["a", 2]]
        with pytest.raises(NoAnswer, match="has no process") as caught:
            await pool.resident.ask("gauge", {"kind": "crash"}, timeout=60)
        assert caught.value.was_lost
        assert await news() == [["a", 2]]
        assert pool.stats().ready


async def test_one_that_dies_of_what_it_is_told_is_replaced_ever_later_and_sessions_start(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1) as pool:
        await resident_of(pool)
        begin = pool.stats().idle

        def deaths() -> list[ExitReport]:
            return [one for one in pool.recent_reports if one.signal == signal.SIGKILL]

        pool.resident.set_news("room", "a", "crash")
        await eventually(lambda: len(deaths()) >= 5, "five residents that die of the same news")
        assert pool.stats().ready
        assert pool.stats().idle == begin
        assert not pool.stats().breaker_open
        report = await (await pool.launch()).wait()
        assert report.outcome == "succeeded"
        pool.resident.drop_news("room", "a")
        assert await pool.resident.ask("gauge", {"kind": "news"}, timeout=60) == []


async def test_an_app_without_an_integration_has_no_resident_process(make_app: MakeApp) -> None:
    source = "@app.entrypoint\nasync def entrypoint(ctx): ...\n"
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        pool.resident.set_news("room", "a", 1)
        with pytest.raises(NoAnswer, match="does not answer"):
            await pool.resident.ask("gauge", timeout=60)
        assert len(pool.processes) == 1


async def test_new_code_that_asks_for_one_has_one(make_app: MakeApp) -> None:
    name = make_app("@app.entrypoint\nasync def entrypoint(ctx): ...\n")
    path = Path(name.removesuffix(":app"))
    async with ProcessPool(name, num_idle_processes=1) as pool:
        pool.resident.set_news("room", "a", 1)
        assert residents(pool) == []
        path.write_text(path.read_text().partition("@app.entrypoint")[0] + APP)
        await pool.reload()
        assert await pool.resident.ask("gauge", {"kind": "news"}, timeout=60) == [["a", 1]]
        path.write_text(path.read_text().replace("app.answers", "#").replace("app.hears", "#"))
        await pool.reload()
        await eventually(lambda: len(pool.processes) == 1, "end of the resident process")
