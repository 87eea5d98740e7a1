"""J7: results and metadata of every size and shape. What can be passed arrives as it was; the rest is refused."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage, assert_recovered

from greenroom import Job, PayloadError, ProcessPool

MakeApp = Callable[[str], str]

APP = """
import collections, datetime, decimal, enum

MAKERS = {}

def maker(fn):
    MAKERS[fn.__name__] = fn

@maker
def an_object(): return object()
@maker
def a_set(): return {1, 2}
@maker
def a_date(): return datetime.date.today()
@maker
def bytes_within(): return {"audio": b"..."}
@maker
def a_lock(): return threading.Lock()
@maker
def a_coroutine(): return asyncio.sleep(0)
@maker
def a_key(): return {("a", "pair"): 1}
@maker
def a_circle():
    circle = []
    circle.append(circle)
    return circle
@maker
def a_deep_one():
    value = None
    for _ in range(100_000):
        value = [value]
    return value
@maker
def too_many_bytes(): return bytes(64 * 2**20)
@maker
def too_much_text(): return "x" * (64 * 2**20)
@maker
def a_number(): return 10 ** 10_000
@maker
def an_evil_one():
    class Evil(dict):
        def items(self):
            raise RuntimeError("no items")
    return Evil(a=1)

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    metadata = ctx.job.metadata
    if isinstance(metadata, dict) and "make" in metadata:
        return MAKERS[metadata["make"]]()
    if isinstance(metadata, dict) and "result of" in metadata:
        return bytes(range(256)) * (metadata["result of"] // 256)
    if isinstance(metadata, (str, bytes)) and len(metadata) > 10**6:
        return [type(metadata).__name__, len(metadata), metadata[:1] == metadata[-1:]]
    return metadata
"""

MEGABYTE = 2**20


def nested(depth: int, value: Any = None) -> Any:
    for _ in range(depth):
        value = [value]
    return value


SMALL: list[Any] = [
    None,
    b"",
    "",
    [],
    {},
    0,
    -0.5,
    2**70,
    True,
    "J'ai \u8a9e \U0001f3ad \x00 \u2028",
    "a lone surrogate \udcff and another \ud800",
    {"\udcff": "\ud800"},
    b"\xff\xfe\x00 is not UTF-8",
    bytes(range(256)),
    nested(300),
    {"a": [{"b": [1, 2.5, None, {"c": "d"}]}]},
]


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_J7_small_payloads_arrive_as_they_were(make_app: MakeApp, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2, start_method=start_method) as pool,
    ):
        handles = [pool.submit(value, timeout=50) for value in SMALL]
        for handle, value in zip(handles, SMALL, strict=True):
            report = await handle.wait()
            assert (report.outcome, report.reason) == ("succeeded", "completed")
            assert report.result == value
            assert type(report.result) is type(value)
            assert (report.result_json is None) == isinstance(value, bytes)
        assert stage.starts() == {handle.id: 1 for handle in handles}
        await assert_recovered(pool, 2)


async def test_J7_a_number_that_is_none(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        result = (await (await pool.launch([math.nan, math.inf])).wait()).result
        assert math.isnan(result[0])
        assert result[1] == math.inf


@pytest.mark.parametrize("size", [MEGABYTE, 50 * MEGABYTE, 64 * MEGABYTE - 1])
@pytest.mark.parametrize("kind", ["text", "bytes"])
async def test_J7_large_metadata(make_app: MakeApp, kind: str, size: int) -> None:
    value: Any = "x" * (size - 2) if kind == "text" else bytes(size)  # text has two quotes around it
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        handle = await pool.launch(value, timeout=50)
        report = await handle.wait()
        assert report.result == [type(value).__name__, len(value), True]
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("size", [MEGABYTE, 50 * MEGABYTE])
async def test_J7_large_results(make_app: MakeApp, size: int) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        report = await (await pool.launch({"result of": size})).wait()
        assert (report.outcome, report.reason) == ("succeeded", "completed")
        assert report.result == bytes(range(256)) * (size // 256)
        await assert_recovered(pool, 1)


async def test_J7_large_payloads_stand_in_nobody_s_way(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=3, max_idle_processes=3) as pool,
    ):
        large = [pool.submit({"result of": 50 * MEGABYTE}), pool.submit(bytes(50 * MEGABYTE), timeout=50)]
        for number in range(10):
            assert (await (await pool.launch(number)).wait()).result == number
        first, second = [await handle.wait() for handle in large]
        assert len(first.result) == 50 * MEGABYTE
        assert second.result == ["bytes", 50 * MEGABYTE, True]
        await assert_recovered(pool, 3)


REFUSED = {
    "an_object": "not plain data (JSON values or bytes): Object of type object",
    "a_set": "Object of type set",
    "a_date": "Object of type date",
    "bytes_within": "Object of type bytes",
    "a_lock": "Object of type lock",
    "a_key": "keys must be str",
    "a_number": "limit",
    "a_circle": "Circular reference",
    "a_deep_one": "nested too deeply",
    "too_many_bytes": "67108865 bytes of data; at most 67108864 can be passed",
    "too_much_text": "67108867 bytes of data; at most 67108864 can be passed",
}


async def test_J7_a_result_that_cannot_be_passed_is_told(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2) as pool,
    ):
        handles = {kind: pool.submit({"make": kind}, timeout=50) for kind in REFUSED}
        for kind, handle in handles.items():
            report = await handle.wait()
            assert (report.outcome, report.reason, report.exit_code) == ("failed", "raised", 1), kind
            assert report.error is not None
            assert report.error.type == "greenroom.errors.PayloadError"
            assert REFUSED[kind] in report.error.message
            assert report.result is None
            assert report.result_json is None
        assert stage.starts() == {handle.id: 1 for handle in handles.values()}
        await assert_recovered(pool, 2)


async def test_J7_a_result_that_fails_by_itself_is_told(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        report = await (await pool.launch({"make": "an_evil_one"})).wait()
        assert (report.outcome, report.reason) == ("failed", "raised")
        assert report.error is not None
        assert report.error.message == "no items"
        await assert_recovered(pool, 1)


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "not plain data"),
        ({"at": {1, 2}}, "Object of type set"),
        ({"audio": b"..."}, "Object of type bytes"),
        ({("a", "pair"): 1}, "keys must be str"),
        (threading.Lock(), "Object of type lock"),
        (circle(), "Circular reference"),
        (nested(100_000), "nested too deeply"),
        (bytes(64 * MEGABYTE), "67108865 bytes of data; at most 67108864"),
        ("x" * 64 * MEGABYTE, "67108867 bytes of data; at most 67108864"),
    ],
    ids=["object", "set", "bytes within", "key", "lock", "circle", "deep", "too many bytes", "too much text"],
)
async def test_J7_metadata_that_cannot_be_passed_changes_nothing(make_app: MakeApp, value: Any, complaint: str) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        before = pool.stats(), pool.processes
        with pytest.raises(PayloadError, match=complaint):
            await pool.launch(value)
        with pytest.raises(PayloadError, match=complaint):
            pool.submit(value)
        with pytest.raises(PayloadError, match=complaint):
            Job("an-id", value)
        assert (pool.stats(), pool.processes) == before
        assert pool.recent_reports == ()
        assert (await (await pool.launch(1)).wait()).result == 1
        assert len(stage.starts()) == 1
        await assert_recovered(pool, 1)


async def test_J7_data_that_is_accepted_can_be_read_at_the_other_side(make_app: MakeApp) -> None:
    """What is nested nearly too deeply is refused, or arrives: it is not accepted and then unreadable."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        arrived = 0
        for depth in range(sys.getrecursionlimit() - 160, sys.getrecursionlimit() + 20, 20):
            try:
                handle = await pool.launch(nested(depth))
            except PayloadError as error:
                assert "nested too deeply" in str(error)  # noqa: PT017
                continue
            report = await handle.wait()
            if report.reason == "raised":
                assert report.error is not None
                assert "nested too deeply" in report.error.message
            else:
                assert report.result == nested(depth)
                arrived += 1
        assert arrived > 0
        await assert_recovered(pool, 1)
