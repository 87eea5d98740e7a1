"""Sessions on three workers behind HAProxy: started, found, awaited and cancelled through one address.

A worker without an idle process is not ready, and HAProxy refuses a call when no worker is. So each worker has as many
idle processes as a test starts sessions at once.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from machines.cluster import Cluster, changed
from machines.scenarios import flow, fresh, looked_up, repeated, start_head, started_on
from support import DEADLINE

pytestmark = pytest.mark.usefixtures("installed")
TOKEN = "0123456789abcdef0123456789abcdef"


async def test_sessions_are_started_and_found_through_haproxy(tmp_path: Path) -> None:
    """The main promise, in short: the rest of this folder takes it apart."""
    async with Cluster(tmp_path, idle=7) as cluster, cluster.front() as front:
        assert await looked_up(cluster, front, calls=2) == []
        assert await repeated(cluster, front, calls=2) == []
        started = await front.start_job("last")
        assert re.fullmatch(r"[abc]\.[0-9a-f]{8}\.[0-9a-f]{12}", started.id)


@pytest.mark.more
@pytest.mark.in_pairs
async def test_sessions_are_found_before_and_after_a_restart(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        assert await looked_up(cluster, front) == []
        assert await looked_up(cluster, front, between=front.restart) == []


@pytest.mark.more
@pytest.mark.in_pairs
async def test_sessions_of_full_and_draining_workers_are_found(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, cluster.front() as front:

        async def fill() -> None:
            await asyncio.gather(*(machine.fill() for machine in cluster.machines.values()))
            assert await front.until_down("starts", *cluster.machines)

        assert await looked_up(cluster, front, between=fill) == []
        await fill()  # its sessions have ended
        refused = await front.start_job(fresh("refused"))
        assert (refused.status, refused.error) == (503, "no_worker")

        async def drain() -> None:
            await cluster["a"].worker.start({"key": fresh("last"), "stays": True})  # without it, the worker would end
            answer = await cluster["a"].worker.ask("POST", "/v1/pool/drain", json={"timeout": 600})
            assert answer.status == 202
            assert await front.until_down("starts", "a")

        for machine in cluster.machines.values():
            await machine.empty()
        await cluster.warm()
        assert await front.until_up("starts", *cluster.machines)
        assert await looked_up(cluster, front, between=drain) == []


@pytest.mark.more
@pytest.mark.in_pairs
async def test_the_id_of_a_client_meets_its_first_call(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=9, jobs=16) as cluster, cluster.front() as front:
        assert await repeated(cluster, front, calls=9) == []
        assert await repeated(cluster, front, calls=9, between=front.restart) == []
        keys = [fresh("pair") for _ in range(8)]
        pairs = await asyncio.gather(*(front.start_job(key, id=key, stays=True) for key in keys for _ in range(2)))
        for key in keys:
            assert sorted([str(one.status) for one in pairs if one.key == key]) == ["201", "409"], pairs

        async def fill() -> None:
            await asyncio.gather(*(machine.fill() for machine in cluster.machines.values()))
            assert await front.until_down("starts", *cluster.machines)

        # A full worker is not asked for more sessions, but it is asked for what it has.
        assert await repeated(cluster, front, calls=9, between=fill) == []


@pytest.mark.more
@pytest.mark.in_pairs
async def test_a_dead_worker_is_told_from_a_session_that_is_not_there(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        ours = await started_on(front, "a")
        theirs = await started_on(front, "a", with_id=True)
        waiting = [asyncio.create_task(front.get(f"/v1/jobs/{ours}?wait={DEADLINE:g}")) for _ in range(3)]
        assert await front.until(lambda rows: int(rows["at_a", "a"]["scur"]) == 3)
        await cluster.kill("a")
        answers = [*await asyncio.gather(*waiting), await front.get(f"/v1/jobs/{ours}")]
        assert [(answer.status, answer.error) for answer in answers] == [(503, "worker_unreachable")] * 4
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
        # The id of a client may be anybody's: while a worker is away, nobody knows.
        assert await front.until_down("lookups", "a")
        for job_id in (theirs, "never-seen"):
            answer = await front.get(f"/v1/jobs/{job_id}")
            assert (answer.status, answer.error) == (503, "worker_unreachable")
        await cluster["a"].start()
        assert await front.until_up("lookups", "a")
        lost = await front.get(f"/v1/jobs/{ours}")
        assert (lost.status, lost.error) == (410, "worker_lost")
        gone = await front.get(f"/v1/jobs/{theirs}")
        assert (gone.status, gone.error) == (404, "unknown_job")
        assert await cluster.faults(front) == []


@pytest.mark.more
@pytest.mark.in_pairs
async def test_each_worker_has_its_page_and_its_api_below_its_name(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=1) as cluster, cluster.front() as front:
        page = await front.get("/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert re.findall(r'href="([^"]+)"', page.body) == ["w/a/", "w/b/", "w/c/"]
        for name in cluster.machines:
            for path, start in (("", "<!doctype html>"), ("metrics", "# HELP"), ("calls", "<!doctype html>")):
                answer = await front.get(f"/w/{name}/{path}")
                assert (answer.status, answer.headers["Greenroom-Worker"]) == (200, name)
                assert answer.body.lower().startswith(start.lower())
            assert (await front.get(f"/w/{name}/v1/pool")).body["idle"] == 1
            moved = await front.get(f"/w/{name}")
            assert (moved.status, moved.headers["Location"]) == (308, f"/w/{name}/")
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(f"GET /w/{name}/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async with asyncio.timeout(DEADLINE):
                await reader.readuntil(b"event: board")
                await reader.readuntil(b"event: Levels")
            writer.close()
            await writer.wait_closed()
        for method, path in (
            ("GET", "/v1/jobs"),
            ("DELETE", "/v1/jobs"),
            ("GET", "/v1/pool"),
            ("GET", "/w/nobody/"),
            ("GET", "/w/"),
            ("GET", "/W/a/"),
        ):
            answer = await front.request(method, path)
            assert (answer.status, answer.error) == (404, "not_found"), path


@pytest.mark.more
@pytest.mark.in_pairs
async def test_a_session_of_a_worker_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=1) as cluster, cluster.front() as front:
        other = await front.get("/v1/jobs/removed.01234567.0123456789ab")
        assert (other.status, other.error) == (421, "other_worker")
        # Only ids of the whole form are a worker's: this one begins with a worker's name, and is a client's.
        told = await front.start_job("a.call", id="a.call", stays=True)
        assert (await front.get("/v1/jobs/a.call")).headers["Greenroom-Worker"] == told.worker
        escaped = told.id.replace(".", "%2E")
        assert (await front.get(f"/v1/jobs/{escaped}")).body["id"] == "a.call"
        reserved = await front.start_job("reserved", id="a.01234567.0123456789ab")
        assert (reserved.status, reserved.error) == (409, "reserved_id")
        assert await cluster.faults(front) == []


@pytest.mark.more
@pytest.mark.in_pairs
async def test_haproxy_s_own_answers_are_json(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=1) as cluster, cluster.front() as front:
        for name in cluster.machines:
            await cluster.kill(name)
        assert await front.until_down("starts", *cluster.machines)
        assert await front.until_down("lookups", *cluster.machines)
        told = await front.start_job("nobody")
        assert (told.status, told.error, told.body["error"]["reason"]) == (503, "no_worker", "no_worker")
        for path in ("/v1/jobs/theirs", "/v1/jobs/a.01234567.0123456789ab", "/w/a/v1/pool"):
            answer = await front.get(path)
            assert (answer.status, answer.error) == (503, "worker_unreachable")


@pytest.mark.more
@pytest.mark.in_pairs
async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    edit = changed("wait-for-body time 10s", "wait-for-body time 1s")
    async with Cluster(tmp_path, idle=1) as cluster, cluster.front(edit) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(start_head(100) + b"{")
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"body_timeout"' in answer


@pytest.mark.more
@pytest.mark.in_pairs
async def test_haproxy_checks_the_token_of_clients(tmp_path: Path) -> None:
    env = {**os.environ, "FRONT_TOKEN": TOKEN}
    async with (
        Cluster(tmp_path, idle=1) as cluster,
        cluster.front(options=("--token-env", "FRONT_TOKEN"), env=env) as front,
    ):
        for token in (None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}"):
            headers = {} if token is None else {"Authorization": token}
            for method, path in (("POST", "/v1/jobs"), ("GET", "/v1/jobs/x"), ("GET", "/w/a/v1/pool")):
                body = {"json": {"metadata": {"key": "none"}}} if method == "POST" else {}
                answer = await front.request(method, path, headers=headers, **body)
                assert (answer.status, answer.error) == (401, "unauthorized"), (token, path)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for path in ("/", "/w/a/", "/w/a/calls", "/w/a/calls/x", "/w/a/page/page.css"):
            assert (await front.get(path)).status == 200, path
        headers = {"Authorization": f"Bearer {TOKEN}"}
        metadata = {"key": "allowed", "stays": True}
        answer = await front.request("POST", "/v1/jobs", headers=headers, json={"metadata": metadata})
        assert answer.status == 201
        assert (await front.request("GET", answer.headers["Location"], headers=headers)).status == 200
        await cluster.until_began("allowed")
        assert [one.key for one in cluster.began()] == ["allowed"]


@pytest.mark.more
@pytest.mark.in_pairs
async def test_a_worker_sees_the_address_of_the_client(tmp_path: Path) -> None:
    """Whatever the client says of it: a small server stands in for a worker, and shows what it gets."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async with Cluster(tmp_path, idle=1) as cluster, await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        stand_in = server.sockets[0].getsockname()[1]
        replaced = changed(f"127.0.0.1:{cluster['a'].port}", f"127.0.0.1:{stand_in}")
        async with cluster.front(replaced) as front:
            await front.request("GET", "/w/a/v1/pool", headers={"X-Forwarded-For": "192.0.2.1"})
    (head,) = (head for head in heads if head.startswith(b"GET /v1/pool "))
    assert re.findall(rb"(?i)^x-forwarded-for: (.*?)\r$", head, re.M) == [b"127.0.0.1"]


@pytest.mark.more
@pytest.mark.in_pairs
async def test_an_idle_haproxy_changes_no_answer(tmp_path: Path) -> None:
    """Row "HAProxy beside straight"; ``benchmarks.machines`` has its milliseconds."""
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        told = await flow(front, 50, seconds=0)
        assert [one.status for one in told] == [201] * 50
        assert await cluster.faults(front) == []
        straight = await cluster["a"].worker.start({"key": "straight"})
        assert set(straight) == set(told[0].body)
