"""From a room to its job: in the log, by the API, in events and reports, and by the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli.client_commands import ask
from dispatcher import a_job
from playwright.async_api import expect
from server.browser import open_page
from source_scene import ACTOR, MakeApp, scene
from support import DEADLINE

expect.set_options(timeout=DEADLINE * 1000)

PRINTING = ACTOR.replace('    note("start", ctx.job.id)\n', '    note("start", ctx.job.id)\n    print("hello")\n')
HALL = {"room": "hall", "room_id": "RM_1", "dispatch": "AD_1", "agent": "actor"}
EVIL = "hall\n12:00:00.000 ERROR   forged\x1b[2J" + "x" * 600


async def test_a_room_leads_to_its_job(make_app: MakeApp) -> None:
    async with scene(make_app, "--log-format", "json", source=PRINTING) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", room="hall", room_id="RM_1", dispatch_id="AD_1", name="actor"))
        await line.runs(a_job("AJ_2", room=EVIL))
        visits = {visit.name: visit for visit in [await at.stage.next("job"), await at.stage.next("job")]}
        await at.worker.logs('"hello"')
        own = [each for each in map(json.loads, at.worker.lines) if each.get("job_id") == "AJ_1"]
        assert [each for each in own if each.get("labels") != HALL] == []
        assert {each["event"] for each in own if "event" in each} >= {"job_started"}
        assert any(each["message"] == "hello" for each in own)

        assert await jobs(at, "?label=room%3Dhall") == ["AJ_1"]
        assert await jobs(at, "?label=agent%3Dactor&state=running") == ["AJ_1"]
        assert await jobs(at, "?label=room%3Dhal") == []
        assert (await at.worker.get("/v1/jobs?label=hall")).status == 400
        shown = (await at.worker.get("/v1/jobs/AJ_2")).body["labels"]["room"]
        assert shown.startswith("hall 12:00:00.000 ERROR   forged\\x1b[2Jxxx")
        assert len(shown) == 256
        board = (await at.worker.get("/v1/board")).body
        assert [each["labels"] for each in board["sessions"] if each["id"] == "AJ_1"] == [HALL]

        found = await ask(at.worker, "jobs", "list", "--room", "hall")
        assert [row.split()[0] for row in found.out.splitlines()] == ["ID", "AJ_1"]
        assert found.out.splitlines()[1].endswith("room=hall")
        assert len((await ask(at.worker, "jobs", "list", "--room", EVIL, "--json")).json["jobs"]) == 1
        assert (await ask(at.worker, "jobs", "list", "--room", "hall", "--label", "agent=actor")).code == 2
        assert (await ask(at.worker, "jobs", "list", "--label", "hall")).code == 2
        one = await ask(at.worker, "jobs", "show", "AJ_1")
        assert "RM_1" in one.out
        for visit in visits.values():
            visit.order("leave")
        assert (await at.worker.report("AJ_1"))["labels"] == HALL
        assert await jobs(at, "?label=room%3Dhall&state=ended") == ["AJ_1"]


async def test_the_start_of_a_job_is_told_with_its_room(make_app: MakeApp) -> None:
    async with scene(make_app) as at:
        line = await (await at.dispatcher.line()).ready()
        await line.runs(a_job("AJ_1", room="hall", room_id="RM_1", dispatch_id="AD_1", name="actor"))
        match = await at.worker.logs(r"job AJ_1 started in process \d+ .*")
        assert match[0].endswith(", room hall, room_id RM_1, dispatch AD_1, agent actor")
        assert "AJ_1 room=hall] " in match.string
        await line.terminate("AJ_1")
        await at.worker.logs(r"AJ_1 room=hall\] job AJ_1: the server requested its end")


@pytest.mark.alone
async def test_the_page_shows_the_room_of_a_session(make_app: MakeApp) -> None:
    async with scene(make_app) as at, open_page(await at.worker.url()) as page:
        line = await (await at.dispatcher.line()).ready()
        await expect(page.locator("#lights .s-idle")).to_have_count(2)
        await line.runs(a_job("AJ_1", room="<b>hall</b>"))
        await page.locator("#lights .s-running").click()
        await expect(page.locator("#chosen")).to_contain_text("job AJ_1 · room <b>hall</b>")


async def jobs(at: Any, query: str) -> list[str]:
    return [job["id"] for job in (await at.worker.get(f"/v1/jobs{query}")).body["jobs"]]
