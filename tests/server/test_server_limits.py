"""What the worker changes for itself must not reach the jobs."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from running_worker import RunningWorker

LIMIT = """
import resource

@app.entrypoint
async def entrypoint(ctx):
    return resource.getrlimit(resource.RLIMIT_NOFILE)
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_a_job_has_the_open_files_limit_that_the_worker_was_started_with(
    make_app: Callable[[str], str], start_method: str
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))

    options = ("--num-idle-processes", "1", "--start-method", start_method)
    async with RunningWorker(make_app(LIMIT), *options, preexec_fn=lower) as worker:
        job = await worker.start(None)
        report = (await worker.get(f"/v1/jobs/{job['id']}?wait=20")).body["report"]
        assert report["result"] == [500, hard]
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (hard, hard)
