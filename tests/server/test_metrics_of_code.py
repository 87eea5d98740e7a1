"""Metrics of what an operator changes: the version of the code, reloads and drains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running_worker import RunningWorker
from support import DEADLINE
from test_server_control import EMPTY, metric

from greenroom import App, GreenroomError

MakeApp = Callable[[str], str]
ENDS = "greenroom_generation_ends_total"


def versioned(version: str) -> str:
    return f"""
    app = greenroom.App(version={version!r})

    @app.entrypoint
    async def entrypoint(ctx):
        if ctx.job.metadata == "raise":
            raise KeyError("menu")
        if ctx.job.metadata == "stay":
            await ctx.wait_for_shutdown()
    """


async def serve(worker: RunningWorker, metadata: str = "") -> str:
    """Have a job run to its end, and return the version that its record has."""
    job = await worker.start(metadata)
    await worker.report(job["id"])
    return str((await worker.get(f"/v1/jobs/{job['id']}")).body["app_version"])


async def test_versions_ends_and_reloads_are_counted_by_generation(make_app: MakeApp) -> None:
    app = make_app(versioned("1.0"))
    path = Path(app.rpartition(":")[0])
    async with RunningWorker(app) as worker:
        begin = time.time()
        assert await metric(worker, "greenroom_info", app_version="1.0") == 1
        assert await metric(worker, "greenroom_last_reload_successful") == 1
        assert await metric(worker, "greenroom_last_reload_timestamp_seconds") == 0
        assert await serve(worker) == "1.0"
        assert await serve(worker, "raise") == "1.0"

        path.write_text(path.read_text().replace("1.0", "2.0.1"))
        assert (await worker.ask("POST", "/v1/pool/reload", **EMPTY)).status == 200
        assert await metric(worker, "greenroom_info", app_version="2.0.1") == 1
        assert await metric(worker, "greenroom_info", app_version="1.0") == 0
        assert await serve(worker) == "2.0.1"
        for generation, version, outcome, count in (
            ("1", "1.0", "succeeded", 1),
            ("1", "1.0", "failed", 1),
            ("2", "2.0.1", "succeeded", 1),
            ("2", "2.0.1", "failed", 0),
        ):
            labels = {"generation": generation, "app_version": version, "outcome": outcome}
            assert await metric(worker, ENDS, **labels) == count, labels
        reloaded = await metric(worker, "greenroom_last_reload_timestamp_seconds")
        assert begin <= reloaded <= time.time()

        path.write_text("def broken(:\n")
        assert (await worker.ask("POST", "/v1/pool/reload", **EMPTY)).status == 409
        assert await metric(worker, "greenroom_last_reload_successful") == 0
        assert await metric(worker, "greenroom_last_reload_timestamp_seconds") > reloaded
        assert await metric(worker, "greenroom_info", app_version="2.0.1") == 1


async def test_the_deadline_of_a_drain_is_shown(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(versioned("1.0"))) as worker:
        await worker.start("stay")
        assert await metric(worker, "greenroom_drain_deadline_timestamp_seconds") == 0
        begin = time.time()
        assert (await worker.ask("POST", "/v1/pool/drain", json={"timeout": 3000})).status == 202
        async with asyncio.timeout(DEADLINE):
            while not (deadline := await metric(worker, "greenroom_drain_deadline_timestamp_seconds")):
                continue
        assert begin + 3000 - 1 <= deadline <= time.time() + 3000


async def test_the_available_memory_is_shown(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(versioned("1.0")), "--min-free-memory-mb", "off") as worker:
        assert await metric(worker, "greenroom_memory_available_bytes") > 2**20


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_the_version_of_a_module_is_that_of_its_app(make_app: MakeApp, start_method: str) -> None:
    source = """
    __version__ = "7 of a line\\nthat is long " + 200 * "x"

    @app.entrypoint
    async def entrypoint(ctx):
        return None
    """
    async with RunningWorker(make_app(source), "--start-method", start_method) as worker:
        version = await serve(worker)
        assert version.startswith("7 of a line that is long xx")
        assert len(version) == 100
        assert await metric(worker, "greenroom_info", app_version=version) == 1


async def test_an_app_without_a_version_has_an_empty_one(make_app: MakeApp) -> None:
    source = """
    __version__ = (1, 0)

    @app.entrypoint
    async def entrypoint(ctx):
        return None
    """
    async with RunningWorker(make_app(source)) as worker:
        assert await serve(worker) == "None"
        assert await metric(worker, "greenroom_info", app_version="") == 1


def test_a_version_is_a_text() -> None:
    with pytest.raises(GreenroomError, match="version takes a text, not 1"):
        App(version=1)  # type: ignore[arg-type]
