"""The status page in a real browser: what it shows is what happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import open_page
from faults.stage import Stage
from playwright.async_api import expect
from running_worker import RunningWorker
from support import DEADLINE, kill

pytestmark = pytest.mark.in_pairs  # a browser each

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
expect.set_options(timeout=DEADLINE * 1000)
ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "raise":
        raise ValueError("<b>no such caller</b>")
    return ctx.job.metadata
"""


async def test_a_session_is_started_by_the_button_and_seen(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(), command="dev") as worker,
        open_page(await worker.url()) as page,
    ):
        await expect(page.locator("#ready")).to_have_text("ready")
        await expect(page.locator("#lights .s-idle")).to_have_count(1)
        await page.fill("#metadata", '"stay"')
        await page.click("#start-button")
        await expect(page.locator("#start-result")).to_contain_text("runs in process")
        visit = await stage.next("job")
        await expect(page.locator("#lights .s-running")).to_have_count(1)
        await expect(page.locator("#figure-running b")).to_have_text("1 / 100")
        await expect(page.locator("#percentiles")).to_contain_text("1 starts")
        await page.locator("#lights .s-running").click()
        await expect(page.locator("#chosen")).to_contain_text(f"pid {visit.pid}")
        kill(visit.pid, signal.SIGKILL)
        await expect(page.locator("#lights .s-killed")).to_have_count(1)
        await expect(page.locator("#reports summary")).to_contain_text("killed, signaled")
        await page.fill("#metadata", "{")
        await page.click("#start-button")
        await expect(page.locator("#start-result")).to_contain_text("not JSON")


async def test_what_is_turned_down_and_what_went_wrong_is_shown_as_text(make_app: MakeApp) -> None:
    options = ["--num-idle-processes", "1", "--max-jobs", "1"]
    async with RunningWorker(make_app(ECHO), *options) as worker, open_page(await worker.url()) as page:
        await expect(page.locator("#ready")).to_have_text("ready")
        await expect(page.locator("#start")).to_be_hidden()  # that is for `dev`
        await worker.report((await worker.start("raise"))["id"])
        await expect(page.locator("#reports summary")).to_contain_text("failed, raised")
        await page.locator("#reports summary").click()
        await expect(page.locator("#reports pre")).to_contain_text("<b>no such caller</b>")
        assert await page.locator("#reports b").count() == 0
        zygote = (await worker.get("/v1/pool")).body["zygote_pid"]
        kill(zygote)
        await expect(page.locator("#about")).to_contain_text("zygote replaced 1×")


async def test_full_is_shown_with_the_reason(make_app: MakeApp) -> None:
    options = ["--num-idle-processes", "1", "--max-jobs", "1"]
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(), *options) as worker,
        open_page(await worker.url()) as page,
    ):
        await worker.start("stay")
        await expect(page.locator("#ready")).to_have_text("takes no more: full")
        assert (await worker.post()).status == 503
        await expect(page.locator("#turned-down li")).to_contain_text("full")
        (await stage.next("job")).order("leave")
        await expect(page.locator("#ready")).to_have_text("ready")


async def test_the_page_asks_for_the_token_and_comes_back_after_a_restart(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    app = make_app(ECHO)
    async with RunningWorker(app, "--num-idle-processes", "2", env=environment) as worker:
        port = str(await worker.port())
        async with open_page(await worker.url()) as page:
            await expect(page.locator("#token-form")).to_be_visible()
            await page.fill("#token", "wrong-wrong-wrong-wrong")
            await page.click("#token-form button")
            await expect(page.locator("#token-form")).to_be_visible()
            await page.fill("#token", TOKEN)
            await page.click("#token-form button")
            await expect(page.locator("#lights .s-idle")).to_have_count(2)
            worker.signal(signal.SIGTERM)
            assert await worker.exit_code() == 0
            await expect(page.locator("#ready")).to_have_text("no connection")
            async with RunningWorker(app, "--num-idle-processes", "3", "--port", port, env=environment) as again:
                await again.logs("serving")
                await expect(page.locator("#lights .s-idle")).to_have_count(3)


@pytest.mark.parametrize("width", [360, 1280])
async def test_it_fits_on_a_phone_with_a_hundred_processes(make_app: MakeApp, width: int) -> None:
    options = ["--num-idle-processes", "100", "--max-idle-processes", "100"]
    async with (
        RunningWorker(make_app(ECHO), *options, command="dev") as worker,
        open_page(await worker.url(), viewport={"width": width, "height": 800}) as page,
    ):
        await expect(page.locator("#lights .s-idle")).to_have_count(100)
        root = "document.documentElement"
        assert await page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0


async def test_a_thousand_processes_are_a_thousand_lights(make_app: MakeApp) -> None:
    """With the page's own code, and events made up for it: a thousand real ones are measured in the benchmarks."""
    async with (
        RunningWorker(make_app(ECHO), "--num-idle-processes", "1") as worker,
        open_page(await worker.url()) as page,
    ):
        await expect(page.locator("#lights .s-idle")).to_have_count(1)
        await page.evaluate(
            """() => {
                for (let n = 0; n < 1000; n += 1) {
                    const ids = { process_id: `9-${n}`, pid: n, generation: 9, job_id: null, at: 0 };
                    greenroom.apply(greenroom.board, "ProcessChanged", { ...ids, before: "", after: "running" });
                }
            }"""
        )
        await worker.start("and one that is real")
        await expect(page.locator("#lights .s-running")).to_have_count(1000)
