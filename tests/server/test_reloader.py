"""S6: reloads that are asked for at the same time, from several sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from faults.stage import PLAIN, Stage

from greenroom import AppLoadError, ProcessPool
from greenroom.server.reload import Reloader

MakeApp = Callable[[str], str]

HELD_LOADING = f"""
@app.preload
def preload():
    if block_on_stage("preload") == "fail":
        raise ValueError("no such model")
{PLAIN}"""


async def a_moment() -> None:
    """Let what was just asked for be taken note of."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def started(stage: Stage) -> AsyncIterator[ProcessPool]:
    pool = ProcessPool(stage.app(HELD_LOADING), num_idle_processes=1)
    starting = asyncio.create_task(pool.start())
    (await stage.next("preload")).order("load")
    try:
        await starting
        yield pool
    finally:
        await pool.aclose()


async def test_S6_reloads_asked_for_during_one_are_one_more(make_app: MakeApp) -> None:
    """What they want to be served was perhaps written after the one under way had read it."""
    async with Stage(make_app) as stage, started(stage) as pool:
        reloader = Reloader(pool)
        first = asyncio.create_task(reloader.reload("first"))
        visit = await stage.next("preload")
        others = [asyncio.create_task(reloader.reload(name)) for name in ("second", "third")]
        await a_moment()
        visit.order("load")
        assert await first == 2
        (await stage.next("preload")).order("load")
        assert await asyncio.gather(*others) == [3, 3]
        assert pool.stats().generation == 3


async def test_S6_all_who_asked_for_a_reload_hear_that_it_failed(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, started(stage) as pool:
        reloader = Reloader(pool)
        both = [asyncio.create_task(reloader.reload(name)) for name in ("first", "second")]
        (await stage.next("preload")).order("fail")
        for reload in both:
            with pytest.raises(AppLoadError, match="no such model"):
                await reload
        assert pool.stats().generation == 1


async def test_S6_a_reload_is_given_up_when_all_who_asked_for_it_have_gone(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, started(stage) as pool:
        reloader = Reloader(pool)
        both = [asyncio.create_task(reloader.reload(name)) for name in ("first", "second")]
        visit = await stage.next("preload")
        waiting = asyncio.create_task(reloader.reload("third"))
        await a_moment()
        for reload in (waiting, both[0]):
            reload.cancel()
            await asyncio.wait([reload])
        visit.order("load")
        assert await both[1] == 2
        last = asyncio.create_task(reloader.reload("last"))
        visit = await stage.next("preload")
        last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        await visit.left()
        assert pool.stats().generation == 2
