"""The list of calls and the page of one call, in a real Chromium."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from browser import open_page
from playwright.async_api import expect
from running_worker import RunningWorker
from support import DEADLINE

pytestmark = pytest.mark.in_pairs  # a browser each

expect.set_options(timeout=DEADLINE * 1000)
MakeApp = Callable[[str], str]

APP = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    m = ctx.job.metadata
    logging.getLogger("bot").warning("hello <b>%s</b>", m["caller"])
    if m.get("raise"):
        raise KeyError("menu")
    if m.get("block"):
        time.sleep(3600)
    await asyncio.sleep(3600)
"""
SIZES = [{"width": 1280, "height": 900}, {"width": 390, "height": 844}]


async def test_a_call_is_found_by_its_caller_and_shown(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        url = await worker.url()
        await worker.start({"caller": "+15550100"}, id="first")
        await worker.start({"caller": "<i>+15550200</i>"}, id="second")
        async with open_page(f"{url}/calls", expected=("status of 400",)) as page:
            await expect(page.locator("#rows tr")).to_have_count(2)
            await expect(page.locator("#rows i")).to_have_count(0)  # texts of callers are shown as text
            await page.fill("#search", "caller:+15550100")
            await expect(page.locator("#rows tr")).to_have_count(1)
            await page.reload()  # the search is part of the link
            await expect(page.locator("#rows tr")).to_have_count(1)
            await page.fill("#search", "since:now")
            await expect(page.locator("#problem")).to_contain_text("is no time")
            await page.fill("#search", "")
            await page.click("text=first")
            await expect(page.locator("#title")).to_have_text("first")
            await expect(page.locator("#facts")).to_contain_text("caller +15550100")
            await expect(page.locator("#log")).to_contain_text("hello <b>+15550100</b>")
            await expect(page.locator("#log b")).to_have_count(0)
            await expect(page.locator("#steps li")).to_have_count(3)
            await page.click("#cancel-button")
            await expect(page.locator("#report")).to_contain_text("cancelled, cancelled")
            await expect(page.locator("#stack-button")).to_be_disabled()


async def test_a_stuck_call_is_marked_and_its_stack_is_shown(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        url = await worker.url()
        await worker.start({"caller": "+1", "block": True}, id="blocked")
        async with open_page(f"{url}/calls") as page:
            await expect(page.locator("#rows td.bad")).to_have_text("stuck")
            await page.click("text=blocked")
            await expect(page.locator("#state")).to_have_text("stuck")
            await page.click("#stack-button")
            await expect(page.locator("#stack")).to_contain_text("in entrypoint")


async def test_failures_are_grouped_by_cause_and_lead_to_a_call(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        url = await worker.url()
        for _ in range(3):
            await worker.report((await worker.start({"caller": "+1", "raise": True}))["id"])
        victim = await worker.start({"caller": "+2"}, id="victim")
        os.kill(victim["pid"], signal.SIGKILL)
        await worker.report("victim")
        async with open_page(f"{url}/calls") as page:
            await expect(page.locator("#causes li")).to_have_count(2)
            await expect(page.locator("#causes")).to_contain_text("3× failed, raised: KeyError at app_0.py")
            await page.click("text=1× killed, signaled: SIGKILL")
            await expect(page.locator("#title")).to_have_text("victim")


async def test_an_unknown_call_is_said(make_app: MakeApp) -> None:
    async with (
        RunningWorker(make_app(APP)) as worker,
        open_page(f"{await worker.url()}/calls/nobody", expected=("status of 404",)) as page,
    ):
        await expect(page.locator("#problem")).to_contain_text("there is no job 'nobody'")


async def test_a_selection_and_the_focus_stay(make_app: MakeApp) -> None:
    """Calls go on, and the page is drawn anew, while somebody copies a traceback."""
    async with RunningWorker(make_app(APP)) as worker:
        await worker.report((await worker.start({"caller": "+1", "raise": True}))["id"])
        async with open_page(await worker.url()) as page:
            await page.click("#reports summary")
            await expect(page.locator("#reports pre")).to_be_visible()
            length = await page.evaluate(SELECT)
            assert length > 100
            await worker.report((await worker.start({"caller": "+1", "raise": True}))["id"])
            await expect(page.locator("#reports summary")).to_contain_text("2× failed, raised")
            assert await page.evaluate("getSelection().toString().length") == length
            assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"


SELECT = """() => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector("#reports pre"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  document.querySelector("#reports summary").focus();
  return getSelection().toString().length;
}"""


@pytest.mark.more
@pytest.mark.parametrize("size", SIZES, ids=["desktop", "phone"])
async def test_the_pages_fit(make_app: MakeApp, size: dict[str, int]) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        url = await worker.url()
        await worker.report((await worker.start({"caller": "+1" * 200, "raise": True}, id="a" * 128))["id"])
        for path in ("/calls", f"/calls/{'a' * 128}", "/"):
            async with open_page(f"{url}{path}", viewport=size) as page:
                await expect(page.locator("body")).to_contain_text("aaaa")
                overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert await page.evaluate(overflow) <= 0, path
