"""The name of a worker in ids, headers and errors, and what a drain says to clients that keep their connection."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker

from greenroom.server.worker_identity import WorkerIdentity, has_own_form, name_of_host, worker_of

APP = """
@app.entrypoint
async def entrypoint(ctx):
    await asyncio.sleep(ctx.job.metadata or 0)
"""
NAMES = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)


@pytest.fixture
def agent(make_app: Callable[[str], str]) -> str:
    return make_app(APP)


@given(name=NAMES, other=NAMES)
def test_an_id_tells_which_start_of_which_worker_has_made_it(name: str, other: str) -> None:
    this, again = WorkerIdentity(name), WorkerIdentity(name)
    job_id = this.new_job_id()
    assert (has_own_form(job_id), worker_of(job_id)) == (True, name)
    assert this.origin_of(job_id) == "this"
    assert again.origin_of(job_id) == "earlier"
    assert WorkerIdentity(other).origin_of(job_id) == ("earlier" if other == name else "other")


@given(st.one_of(st.text(), st.sampled_from(["job-1", "a.b.c", "a.12345678.123456789abG", "A.12345678.123456789abc"])))
def test_other_ids_tell_nothing(job_id: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]{1,32}\.[0-9a-f]{8}\.[0-9a-f]{12}", job_id):
        assert (has_own_form(job_id), WorkerIdentity("a").origin_of(job_id)) == (False, None)


def test_the_name_of_the_host_is_a_name() -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,32}", name_of_host())


async def test_each_answer_names_the_worker(agent: str) -> None:
    async with RunningWorker(agent, "--worker-name", "blue-1", "--health-port", "0") as worker:
        started = await worker.ask("POST", "/v1/jobs", json={"metadata": 60})
        job_id = started.body["id"]
        assert re.fullmatch(r"blue-1\.[0-9a-f]{8}\.[0-9a-f]{12}", job_id)
        assert started.headers["Location"] == f"/v1/jobs/{job_id}"
        assert (await worker.ask("GET", started.headers["Location"])).body["id"] == job_id
        answers = [
            started,
            await worker.ask("GET", "/livez"),
            await worker.ask("GET", "/nowhere"),
            await worker.ask("PUT", "/v1/jobs"),
            await worker.ask("POST", "/v1/jobs", data=b"{", headers={"Content-Type": "application/json"}),
            await worker.ask("POST", "/v1/jobs", data=b"", headers={"Content-Encoding": "gzip"}),
        ]
        assert [answer.status for answer in answers] == [201, 200, 404, 405, 400, 415]
        assert [answer.headers.get("Greenroom-Worker") for answer in answers] == ["blue-1"] * 6
        mine = await worker.ask("POST", "/v1/jobs", json={"id": "call.7", "metadata": 0})
        assert (mine.status, mine.body["id"]) == (201, "call.7")


async def test_an_id_of_another_worker_or_start_is_told_as_that(agent: str) -> None:
    async with RunningWorker(agent, "--worker-name", "blue") as worker:
        earlier, other = WorkerIdentity("blue").new_job_id(), WorkerIdentity("red").new_job_id()
        for method, end in (("GET", ""), ("DELETE", ""), ("GET", "/log"), ("GET", "/life"), ("POST", "/stack")):
            body = {"json": {}} if method == "POST" else {}
            lost = await worker.ask(method, f"/v1/jobs/{earlier}{end}", **body)
            assert (lost.status, lost.error["type"]) == (410, "worker_lost")
            away = await worker.ask(method, f"/v1/jobs/{other}{end}", **body)
            assert (away.status, away.error["type"]) == (421, "other_worker")
            assert "'red'" in away.error["message"]
            unknown = await worker.ask(method, f"/v1/jobs/call-7{end}", **body)
            assert (unknown.status, unknown.error["type"]) == (404, "unknown_job")


async def test_a_client_cannot_choose_an_id_of_a_worker(agent: str) -> None:
    async with RunningWorker(agent) as worker:
        job_id = WorkerIdentity("blue").new_job_id()
        refused = await worker.ask("POST", "/v1/jobs", json={"id": job_id})
        assert (refused.status, refused.error["type"]) == (409, "reserved_id")
        assert (await worker.ask("GET", "/v1/jobs")).body["jobs"] == []


@pytest.mark.parametrize("name", ["", "Blue", "a" * 33, "a.b", "a b"])
async def test_a_name_that_cannot_be_one_is_refused(agent: str, name: str) -> None:
    async with RunningWorker(agent, "--worker-name", name) as worker:
        assert await worker.ends() == 2
        assert any("worker_name is" in line for line in worker.lines)


async def test_a_drain_sends_clients_away(agent: str) -> None:
    async with RunningWorker(agent) as worker:
        started = await worker.ask("POST", "/v1/jobs", json={"metadata": 60})
        before = [started, await worker.ask("GET", "/v1/pool"), await worker.ask("GET", "/nowhere")]
        assert {answer.headers.get("Connection", "keep-alive") for answer in before} == {"keep-alive"}
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 1 jobs may go on")
        after = [
            await worker.ask("POST", "/v1/jobs", json={}),
            await worker.ask("GET", "/v1/pool"),
            await worker.ask("GET", "/nowhere"),
            await worker.ask("GET", f"/v1/jobs/{started.body['id']}"),
        ]
        assert [answer.status for answer in after] == [503, 200, 404, 200]
        assert {answer.headers["Connection"] for answer in after} == {"close"}
        await worker.ask("DELETE", f"/v1/jobs/{started.body['id']}")
        assert await worker.ends() == 0
