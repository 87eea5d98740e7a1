"""Log of slow callbacks: by CPU time, with the name of the callback, and only while it is switched on."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any

import pytest

from greenroom import OptionError
from greenroom.server.slow_callbacks import slow_callbacks
from greenroom.settings import LogOptions


def burn(seconds: float) -> None:
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        sum(range(1000))


async def task_that_burns() -> None:
    await asyncio.sleep(0)
    burn(0.05)


def events(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == "slow_callback"]


def test_callbacks_and_tasks_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(functools.partial(burn, 0.05))
        loop.call_later(0, burn, 0.05)
        await asyncio.create_task(task_that_burns(), name="cook")

    with caplog.at_level(logging.WARNING), slow_callbacks(20.0):
        asyncio.run(main())
    names = [record.details["callback"] for record in events(caplog)]
    assert sorted(names) == sorted([f"{__name__}.burn"] * 2 + ["task cook (task_that_burns)"])
    assert all(record.details["cpu_ms"] >= 50 for record in events(caplog))


def test_time_without_the_cpu_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING), slow_callbacks(50.0):
        asyncio.run(main())
    assert not events(caplog)


def test_nothing_is_logged_while_it_is_off(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.Handle._run
    with slow_callbacks(None):
        assert asyncio.Handle._run is before
    with slow_callbacks(1.0):
        assert asyncio.Handle._run is not before
    assert asyncio.Handle._run is before


def test_a_callback_that_raises_is_handled_as_before(caplog: pytest.LogCaptureFixture) -> None:
    problems: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: problems.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with slow_callbacks(1000.0):
        asyncio.run(main())
    assert [type(problem) for problem in problems] == [ZeroDivisionError]


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_a_wrong_limit_is_refused(wrong: float) -> None:
    with pytest.raises(OptionError, match="slow_callback_ms is"):
        LogOptions(slow_callback_ms=wrong)
