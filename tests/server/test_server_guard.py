"""Who may ask, and how much: the token, host names, and request rates."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
from faults.stage import Stage
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker
from support import wait_for_file

from greenroom.server.web.connections import network_of
from greenroom.server.web.guard import RateLimit

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
OPEN = ["/livez", "/readyz", "/", "/page/page.js", "/page/board.js"]
LOCKED = [
    "/v1/jobs",
    "/v1/jobs/any",
    "/v1/pool",
    "/v1/board",
    "/v1/events",
    "/v1/debug/recording",
    "/pressure",
    "/metrics",
    "/metrics/jobs",
    "/openapi.json",
]
WRONG = [
    {},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Bearer {TOKEN.upper()}"},
    {"Authorization": "Bearer \udcff"},
]


def with_token(token: str = TOKEN) -> dict[str, str]:
    return {**os.environ, "GREENROOM_TOKEN": token}


async def test_with_a_token_nothing_is_told_without_it(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1", env=with_token()) as worker:
        await worker.logs("serving")
        right = {"Authorization": f"bearer  {TOKEN}"}
        for path in LOCKED:
            for headers in WRONG:
                answer = await worker.fetch("GET", path, headers=headers)
                assert answer.status == 401, (path, headers)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert answer.error["type"] == "unauthorized"
                assert TOKEN not in answer.text
        for path in set(LOCKED) - {"/v1/events", "/v1/jobs/any", "/metrics/jobs"}:
            assert (await worker.fetch("GET", path, headers=right)).status == 200, path
        for path in OPEN:
            assert (await worker.fetch("GET", path)).status == 200, path
        refused = await worker.ask("POST", "/v1/jobs", json={"metadata": 1})
        assert refused.status == 401
        # A page of another site cannot have the token, so its host name does not matter.
        elsewhere = await worker.ask("POST", "/v1/jobs", json={}, headers={**right, "Host": "calls.example"})
        assert elsewhere.status == 201


async def test_readiness_gives_no_details_without_the_token(make_app: MakeApp) -> None:
    broken = NOOP + '\n@app.prewarm\ndef prewarm(proc):\n    raise RuntimeError("password is hunter2")\n'
    async with RunningWorker(make_app(broken), "--num-idle-processes", "1", env=with_token()) as worker:
        answer = await worker.until("/readyz", lambda answer: answer.body.get("reason") == "breaker_open")
        assert answer.status == 503
        assert answer.body == {"ready": False, "reason": "breaker_open"}
        for headers in WRONG:
            assert (await worker.ask("GET", "/readyz", headers=headers)).body == answer.body
        told = await worker.ask("GET", "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        assert told.body["reason"] == "breaker_open"
        assert "hunter2" in told.body["detail"]


async def test_readiness_is_no_way_to_try_tokens_at_a_higher_rate(make_app: MakeApp) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    options = ("--num-idle-processes", "0", "--max-jobs", "1", "--rate-limit", "0.01")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options, env=with_token()) as worker:
        assert (await worker.ask("POST", "/v1/jobs", json={"metadata": "stay"}, headers=right)).status == 201
        # All that the rate allows for some minutes was used up; without the token it is told that it is full.
        assert (await worker.ask("GET", "/readyz", headers=right)).body == {"ready": False, "reason": "full"}


async def test_jobs_do_not_see_the_token(make_app: MakeApp, tmp_path: Path) -> None:
    told = tmp_path / "environment"
    source = f"""
@app.entrypoint
async def entrypoint(ctx):
    with open({str(told)!r}, "w") as file:
        file.write(repr(dict(os.environ)))
"""
    async with RunningWorker(make_app(source), "--num-idle-processes", "1", env=with_token()) as worker:
        await worker.ask("POST", "/v1/jobs", json={}, headers={"Authorization": f"Bearer {TOKEN}"})
        environment = await wait_for_file(told)
        assert "GREENROOM_PROCESS" in environment
        assert TOKEN not in environment


@pytest.mark.parametrize(
    ("options", "token", "complaint"),
    [
        (["--host", "0.0.0.0"], None, "no token is set"),
        (["--host", "::"], None, "token_file (GREENROOM_TOKEN_FILE)"),
        (["--host", "0.0.0.0"], "short", "at least 16"),
    ],
)
async def test_no_other_address_without_a_good_token(
    make_app: MakeApp, options: list[str], token: str | None, complaint: str
) -> None:
    environment = dict(os.environ) if token is None else with_token(token)
    process = await commands.start(
        "start", make_app(NOOP), "--port", "0", *options, stderr=asyncio.subprocess.PIPE, env=environment
    )
    _, complaints = await process.communicate()
    assert process.returncode == 2
    assert complaint in complaints.decode()
    assert token is None or token not in complaints.decode()


async def test_too_many_requests_are_turned_down_one_by_one(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", "--rate-limit", "0.5") as worker:
        await worker.url()
        assert (await worker.get("/v1/pool")).status == 200  # of two seconds' worth
        answer = await worker.until("/v1/pool", lambda answer: answer.status == 429)
        assert answer.error["type"] == "too_many_requests"
        assert int(answer.headers["Retry-After"]) >= 1
        # The page's files cost CPU like any other answer, so no flood of requests for them is served.
        assert {(await worker.get(path)).status for path in ("/", "/page/page.js")} == {429}
        probes = [(await worker.get("/livez")).status for _ in range(20)]
        assert set(probes) == {200}  # from the same address, as behind a proxy


@given(st.floats(0.1, 1000), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=200))
def test_a_client_gets_its_rate_and_no_more(rate: float, requests: list[tuple[str, float]]) -> None:
    time = 0.0
    limit = RateLimit(rate, lambda: time)
    served = {"a": 0, "b": 0}
    for client, pause in requests:
        time += pause
        wait = limit.take(client)
        assert 0 <= wait <= 1 / rate + 1e-9
        served[client] += wait == 0
    for count in served.values():
        assert count <= max(2 * rate, 1) + time * rate + 1e-6


@given(st.floats(0.5, 100))
def test_whoever_waits_as_long_as_told_is_served(rate: float) -> None:
    time = 0.0
    limit = RateLimit(rate, lambda: time)
    for _ in range(50):
        wait = limit.take("client")
        if wait:
            time += wait + 1e-6
            assert limit.take("client") == 0


def test_all_addresses_of_one_ipv6_network_have_one_rate() -> None:
    limit = RateLimit(1.0, lambda: 0.0)
    waits = [limit.take(f"2001:db8:1:2::{number:x}") for number in range(1, 4)]
    assert waits == [0.0, 0.0, 1.0]
    assert limit.take("2001:db8:1:3::1") == 0.0
    assert limit.take("192.0.2.1") == 0.0


def test_ipv4_clients_of_a_socket_for_both_families_are_told_apart() -> None:
    limit = RateLimit(1.0, lambda: 0.0)
    assert [limit.take(f"::ffff:192.0.2.{number}") for number in range(1, 4)] == [0.0, 0.0, 0.0]
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
