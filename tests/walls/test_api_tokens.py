"""A random token: what is open without it, what sessions may do with a token of their own, and the page's codes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from walled import NOBODY, Walled, walled

from greenroom.server.web.routes.page_codes import CODE_SECONDS, MOST_CODES, PageCodes

APP = """
import asyncio
import json
import os
import urllib.error
import urllib.request

from greenroom import App

app = App()


def ask(method, path, body=None, token=None):
    headers = {"Content-Type": "application/json"}
    token = token or os.environ.get("GREENROOM_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["API"] + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@app.entrypoint
async def entrypoint(ctx):
    asked = ctx.job.metadata
    if asked.get("sleep"):
        await asyncio.sleep(3600)
    if asked.get("ends"):
        return None
    os.environ["API"] = asked["url"]
    found = []
    for method, path, body in asked["requests"]:
        status, answer = await asyncio.to_thread(ask, method, path, body)
        found.append([status, answer.get("id") or answer.get("error", {}).get("type")])
    if asked.get("starts"):
        status, started = await asyncio.to_thread(ask, "POST", "/v1/jobs", {"metadata": {"sleep": True}})
        own = f"/v1/jobs/{started.get('id')}"
        found += [status, *[(await asyncio.to_thread(ask, method, own))[0] for method in ("GET", "DELETE")]]
    return {"found": found, "url": os.environ.get("GREENROOM_URL")}
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


async def tried(worker: Walled, requests: list[Any], *, starts: bool = False) -> dict[str, Any]:
    url = await worker.worker.url()
    report = await worker.run({"url": url, "requests": requests, "starts": starts})
    assert report["reason"] == "completed", report
    return dict(report["result"])


async def victim_of(worker: Walled) -> str:
    return str((await worker.start({"sleep": True}))["id"])


async def test_a_session_can_do_nothing_by_the_api(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", app=app, has_victim=False) as worker:
        victim = await victim_of(worker)
        requests = [
            ["DELETE", f"/v1/jobs/{victim}", None],
            ["POST", "/v1/pool/drain", {}],
            ["POST", "/v1/jobs", {"metadata": {"sleep": True}}],
            ["GET", "/v1/jobs", None],
            ["POST", "/v1/page/codes", {}],
            ["POST", "/v1/page/token", {"code": "guessed"}],
        ]
        found = (await tried(worker, requests))["found"]
        assert [status for status, _ in found] == [401, 401, 401, 401, 401, 403]
        assert (await worker.ask("GET", f"/v1/jobs/{victim}")).body["state"] == "running"


async def test_with_the_token_known_the_same_requests_succeed(app: Path) -> None:
    """The control of the test before: what is refused there is not refused for another reason."""
    async with walled(NOBODY, "--token", "off", app=app, has_victim=False) as worker:
        victim = await victim_of(worker)
        requests = [
            ["POST", "/v1/jobs", {"metadata": {"sleep": True}}],
            ["GET", "/v1/jobs", None],
            ["DELETE", f"/v1/jobs/{victim}", None],
        ]
        assert [status for status, _ in (await tried(worker, requests))["found"]] == [201, 200, 202]


async def test_sessions_that_may_start_jobs_may_show_and_cancel_those_and_no_others(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", "--sessions-may", "start", app=app, has_victim=False) as worker:
        victim = await victim_of(worker)
        requests = [["DELETE", f"/v1/jobs/{victim}", None], ["GET", "/v1/pool", None], ["POST", "/v1/pool/drain", {}]]
        result = await tried(worker, requests, starts=True)
        assert result["found"] == [[403, "not_own_job"]] * 3 + [201, 200, 202]
        assert result["url"] == await worker.worker.url()


START = ["POST", "/v1/jobs", {"id": "call-124", "metadata": {"ends": True}}]


@pytest.mark.more
async def test_an_id_that_a_session_has_used_is_not_its_own_for_ever(app: Path) -> None:
    """The worker forgets the job of the session after some time. Then somebody else starts one with the same id."""
    async with walled(NOBODY, "--token", "required", "--sessions-may", "start", app=app, has_victim=False) as worker:
        assert (await tried(worker, [START]))["found"] == [[201, "call-124"]]
        while (await worker.ask("GET", "/v1/jobs/call-124")).status != 404:
            await asyncio.gather(*(worker.run({"ends": True}) for _ in range(2)))
        await worker.start({"sleep": True}, id="call-124")
        requests = [["GET", "/v1/jobs/call-124", None], ["DELETE", "/v1/jobs/call-124", None]]
        assert (await tried(worker, requests))["found"] == [[403, "not_own_job"]] * 2


async def test_an_id_that_somebody_else_asks_for_in_vain_stays_a_session_s(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", "--sessions-may", "start", app=app, has_victim=False) as worker:
        start = ["POST", "/v1/jobs", {"id": "call-124", "metadata": {"sleep": True}}]
        assert (await tried(worker, [start]))["found"] == [[201, "call-124"]]
        again = await worker.ask("POST", "/v1/jobs", json={"id": "call-124", "metadata": {"ends": True}})
        assert (again.status, again.error["type"]) == (409, "duplicate_job")
        assert (await tried(worker, [["DELETE", "/v1/jobs/call-124", None]]))["found"] == [[202, "call-124"]]


async def test_sessions_that_may_do_all_may_do_all(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", "--sessions-may", "all", app=app, has_victim=False) as worker:
        victim = await victim_of(worker)
        result = await tried(worker, [["DELETE", f"/v1/jobs/{victim}", None]], starts=True)
        assert result["found"] == [[202, victim], 201, 200, 202]


async def test_what_is_open_without_the_token(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", app=app, has_victim=False) as worker:
        paths = ("/livez", "/readyz", "/", "/calls", "/page/client.js", "/metrics")
        assert {(await worker.worker.fetch("GET", path)).status for path in paths} == {200}
        for path in ("/v1/pool", "/v1/events", "/v1/jobs", "/pressure", "/openapi.json", "/metrics/jobs"):
            refused = await worker.worker.ask("GET", path)
            assert (refused.status, "greenroom token" in refused.error["message"]) == (401, True), path
        line = await worker.worker.logs("to start a session: .*")
        assert "greenroom token" in line[0]
        assert not any(worker.token in line for line in worker.worker.lines)


async def test_with_a_given_token_metrics_need_it(app: Path) -> None:
    env = {"GREENROOM_TOKEN": "a-token-of-some-length"}
    async with walled(NOBODY, app=app, has_victim=False, env=env) as worker:
        assert (await worker.worker.fetch("GET", "/metrics")).status == 401


async def test_a_code_opens_the_page_once(app: Path) -> None:
    async with walled(NOBODY, "--token", "required", app=app, has_victim=False) as worker:
        code = (await worker.ask("POST", "/v1/page/codes", json={})).body["code"]
        given = await worker.worker.ask("POST", "/v1/page/token", json={"code": code})
        assert (given.status, given.body["token"]) == (200, worker.token)
        again = await worker.worker.ask("POST", "/v1/page/token", json={"code": code})
        assert (again.status, again.error["type"]) == (403, "wrong_code")


async def test_a_link_has_no_code_where_the_page_needs_none(app: Path) -> None:
    """Each process can read the link in the argument list of a browser."""
    async with walled(NOBODY, app=app, has_victim=False) as worker:
        assert (await worker.ask("POST", "/v1/page/codes", json={})).body == {"code": None}


def test_codes_are_used_once_grow_old_and_are_bounded() -> None:
    now = 0.0
    codes = PageCodes(lambda: now)
    first = codes.new()
    assert (codes.take(first), codes.take(first)) == (True, False)
    old = codes.new()
    now = CODE_SECONDS
    assert not codes.take(old)
    pushed_out = codes.new()
    kept = [codes.new() for _ in range(MOST_CODES)]
    assert not codes.take(pushed_out)
    assert all(map(codes.take, kept))


async def test_a_token_on_the_command_line_is_warned_of(app: Path) -> None:
    async with walled(NOBODY, "--token", "a-token-of-some-length", app=app, has_victim=False) as worker:
        await worker.worker.logs("--token is on the command line, which every process of this machine can read")
