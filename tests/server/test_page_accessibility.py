"""axe finds nothing serious on the pages: with calls and without, in dark and light, on a desktop and on a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from axe_playwright_python.async_playwright import Axe
from browser import open_page
from playwright.async_api import Page, expect
from running_worker import RunningWorker
from support import DEADLINE

pytestmark = [pytest.mark.in_pairs, pytest.mark.more]  # a browser each

expect.set_options(timeout=DEADLINE * 1000)
MakeApp = Callable[[str], str]

APP = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    for number in range(60):
        logging.getLogger("bot").warning("line %d of the call", number)
    if ctx.job.metadata["act"] == "raise":
        raise KeyError("menu")
    if ctx.job.metadata["act"] == "block":
        time.sleep(3600)
    await asyncio.sleep(3600)
"""
SIZES = ({"width": 1280, "height": 900}, {"width": 390, "height": 844})
SERIOUS = ("serious", "critical")


async def looks(page: Page) -> AsyncIterator[str]:
    """Show the page in each of its looks, and yield its name."""
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for size in SIZES:
            await page.set_viewport_size(size)  # type: ignore[arg-type]
            yield f"{theme}, {size['width']} pixels"


async def check(page: Page) -> None:
    async for look in looks(page):
        found = (await Axe().run(page)).response["violations"]
        wrong = [
            f"{rule['id']} ({rule['impact']}): {node['target']}: {node['failureSummary']}"
            for rule in found
            if rule["impact"] in SERIOUS
            for node in rule["nodes"]
        ]
        assert not wrong, "\n".join([f"{page.url}, {look}", *wrong])


async def test_pages_without_calls(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        url = await worker.url()
        async with open_page(url, expected=("status of 404",)) as page:
            await expect(page.locator("#ready")).to_have_text("ready")
            await check(page)
            await page.goto(f"{url}/calls")
            await expect(page.locator("#state")).to_have_text("connected")
            await check(page)
            await page.goto(f"{url}/calls/nobody")
            await expect(page.locator("#problem")).to_contain_text("there is no job")
            await check(page)


async def test_pages_with_calls(make_app: MakeApp) -> None:
    options = ("--max-jobs", "2", "--stall-timeout", "off")
    async with RunningWorker(make_app(APP), *options) as worker:
        url = await worker.url()
        await worker.start({"act": "raise", "caller": "+1"}, id="failed")
        await worker.report("failed")
        await worker.start({"act": "stay", "caller": "+2"}, id="live")
        await worker.start({"act": "block", "caller": "+3"}, id="stuck")
        assert (await worker.post({"act": "stay", "caller": "+4"})).status == 503
        await worker.until("/v1/jobs/stuck", lambda answer: answer.body["is_stuck"])
        async with open_page(url) as page:
            for name in ("reports", "turned-down"):
                await page.locator(f"#{name} summary").click()
            await page.locator("#lights button").first.click()
            await expect(page.locator("#reports pre")).to_be_visible()
            await check(page)
            await page.goto(f"{url}/calls")
            await expect(page.locator("#rows tr")).to_have_count(3)
            await expect(page.locator("#causes li")).to_have_count(1)
            await check(page)
            await page.goto(f"{url}/calls/failed")
            await expect(page.locator("#traceback")).to_be_visible()
            await check(page)
            await page.goto(f"{url}/calls/live")
            await expect(page.locator("#log")).to_contain_text("line 59")
            await check(page)
            await page.goto(f"{url}/calls/stuck")
            await expect(page.locator("#state")).to_have_text("stuck")
            await page.click("#stack-button")
            await expect(page.locator("#stack")).to_contain_text("in entrypoint")
            await check(page)


async def test_the_form_for_the_token(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--token", "correct-horse-battery-staple") as worker:
        url = await worker.url()
        for path in ("", "/calls"):
            async with open_page(f"{url}{path}") as page:
                await expect(page.locator("#token-form")).to_be_visible()
                await check(page)


async def test_a_worker_that_is_gone(make_app: MakeApp) -> None:
    """What was known last stays, in grey."""
    async with RunningWorker(make_app(APP)) as worker, open_page(await worker.url()) as page:
        await expect(page.locator("#ready")).to_have_text("ready")
        worker.signal(9)
        await worker.exit_code()
        await expect(page.locator("#ready")).to_have_text("no connection")
        await check(page)
