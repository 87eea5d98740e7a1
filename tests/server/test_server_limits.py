"""What the worker changes for itself must not reach the jobs; and what it does at its own limits."""

from __future__ import annotations

import os
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
        # A session's hard limit is lower, so that it cannot use up the fds in flight of its user.
        assert report["result"] == [500, hard - min(4096, hard // 4)]
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (hard, hard)


async def test_S7_W6_without_open_files_to_look_with_readiness_says_so(make_app: Callable[[str], str]) -> None:
    async with RunningWorker(make_app(LIMIT), "--num-idle-processes", "1") as worker:
        await worker.until("/pressure", lambda answer: answer.body["session_mb"])
        before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        taken = set(map(int, os.listdir(f"/proc/{worker.pid}/fd")))
        lowest_free = min(set(range(max(taken) + 2)) - taken)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        ready = await worker.until("/readyz", lambda answer: answer.status != 200)
        assert (ready.status, ready.body["reason"]) == (503, "memory")
        assert "Too many open files" in ready.body["detail"]
        assert (await worker.get("/pressure")).body["reason"] == "memory"
        turned_down = await worker.post()
        assert (turned_down.status, turned_down.error["reason"]) == (503, "memory")
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
        await worker.until("/readyz", lambda answer: answer.status == 200)
        assert not [line for line in worker.lines if "Traceback" in line]
