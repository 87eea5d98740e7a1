"""Input that makes no sense gets a clear error, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest

from greenroom import Job, OptionError, PoolOptions, ProcessPool
from greenroom.options import PoolKeywords

PLAIN = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.id
"""


@pytest.mark.parametrize("timeout", [math.nan, math.inf, 0, -1, True, "1"])
async def test_a_deadline_must_be_a_number_of_seconds(make_app: Callable[[str], str], timeout: float) -> None:
    async with ProcessPool(make_app(PLAIN), num_idle_processes=1) as pool:
        with pytest.raises(OptionError, match="timeout"):
            await pool.launch(timeout=timeout)
        with pytest.raises(OptionError, match="timeout"):
            await pool.drain(timeout)
        assert (await (await pool.launch()).wait()).reason == "completed"


@pytest.mark.parametrize("job_id", ["", 5, None, b"x"])
def test_a_job_id_is_a_text(job_id: str) -> None:
    with pytest.raises(TypeError, match="id"):
        Job(job_id)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_idle_proceses": 3}, "did you mean num_idle_processes"),
        ({"num_idle_processes": -1}, "at least 0"),
        ({"num_idle_processes": 5, "max_idle_processes": 4}, "at least num_idle_processes"),
        ({"prewarm_timeout": math.nan}, "prewarm_timeout"),
        ({"stall_timeout": 0}, "stall_timeout"),
        ({"memory_limit_mb": -5}, "memory_limit_mb"),
        ({"process_limit": 0}, "process_limit"),
        ({"process_limit": 1.5}, "process_limit"),
        ({"process_limit": True}, "process_limit"),
        ({"memory_limit_mb": math.nan}, "memory_limit_mb"),
        ({"memory_limit_mb": math.inf}, "memory_limit_mb"),
        ({"memory_warn_mb": 10**400}, "memory_warn_mb"),
        ({"start_method": "fork"}, "'zygote' or 'spawn'"),
    ],
)
def test_options_are_checked_before_anything_starts(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ProcessPool("app.py", **options)


async def test_resize_keeps_the_ceiling_that_was_configured(make_app: Callable[[str], str]) -> None:
    async with ProcessPool(make_app(PLAIN), num_idle_processes=1, max_idle_processes=1) as pool:
        pool.resize(2)
        with pytest.raises(OptionError):
            pool.resize(3, max_idle_processes=2)
        assert pool.stats().idle_target == 2
        for _ in range(50):  # demand that would raise the target, were there room below the ceiling
            await (await pool.launch()).wait()
        assert pool.stats().idle_target == 2


async def test_a_reload_within_a_second_of_an_edit_that_keeps_the_size_serves_the_edit(
    make_app: Callable[[str], str],
) -> None:
    app = make_app("VERSION = 1\n" + PLAIN.replace("ctx.job.id", "VERSION"))
    path = Path(app.rpartition(":")[0])
    async with ProcessPool(app, num_idle_processes=1) as pool:
        for version in (1, 2, 3):
            path.write_text(path.read_text().replace(f"VERSION = {version - 1}", f"VERSION = {version}"))
            await pool.reload()
            assert (await (await pool.launch()).wait()).result == version


def test_the_keywords_of_a_pool_are_its_options() -> None:
    assert get_type_hints(PoolKeywords) == get_type_hints(PoolOptions)
