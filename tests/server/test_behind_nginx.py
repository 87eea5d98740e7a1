"""A worker behind a real nginx, under a prefix, as the documentation shows it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from browser import open_page
from commands import GREENROOM
from nginx import nginx
from playwright.async_api import expect
from running_worker import RunningWorker
from support import DEADLINE

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
ROOT = Path(__file__).resolve().parent.parent.parent
DOC, PAGE = ROOT / "docs" / "production.md", ROOT / "src" / "greenroom" / "server" / "web" / "page"
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
expect.set_options(timeout=30_000)


def documented(worker: str, *, token: str | None = None) -> str:
    """The configuration in the documentation, for this worker; with a token, nginx adds it."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```", DOC.read_text(), re.M | re.S)
    config: str = block.replace("http://127.0.0.1:8700/", f"{worker}/")
    assert config != block
    added = '# proxy_set_header Authorization "Bearer TOKEN";'
    assert added in config
    return config if token is None else config.replace(added, added[2:].replace("TOKEN", token))


async def test_the_page_works_under_a_prefix(make_app: MakeApp, tmp_path: Path) -> None:
    async with (
        RunningWorker(make_app(NOOP), "--num-idle-processes", "1", command="dev") as worker,
        nginx(tmp_path, documented(await worker.url())) as front,
    ):
        for path in ("/greenroom/", "/greenroom"):
            async with open_page(front + path) as page:
                await expect(page.locator("#ready")).to_have_text("ready")
                await expect(page.locator("#lights .s-idle")).to_have_count(1)
                await page.click("#start-button")
                await expect(page.locator("#start-result")).to_contain_text("runs in process")
                await expect(page.locator("#percentiles")).to_contain_text("starts")


@pytest.mark.more
async def test_the_page_asks_for_the_token_of_each_worker_under_its_prefix(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1", env=environment) as worker:
        both = documented(await worker.url())
        both += both.replace("/greenroom/", "/other/")
        async with nginx(tmp_path, both) as front, open_page(f"{front}/greenroom/") as page:
            await page.fill("#token", TOKEN)
            await page.click("#token-form button")
            await expect(page.locator("#lights .s-idle")).to_have_count(1)
            await page.reload()
            await expect(page.locator("#lights .s-idle")).to_have_count(1)
            await page.goto(f"{front}/other/")  # a worker that must not be sent the token of the first
            await expect(page.locator("#token-form")).to_be_visible()


async def test_nginx_adds_the_token_but_for_no_page_of_another_site(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    async with (
        RunningWorker(make_app(NOOP), "--num-idle-processes", "1", env=environment) as worker,
        nginx(tmp_path, documented(await worker.url(), token=TOKEN)) as front,
        aiohttp.ClientSession() as session,
    ):
        async with open_page(f"{front}/greenroom/") as page:
            await expect(page.locator("#lights .s-idle")).to_have_count(1)
        order = {"json": {"timeout": 20}}
        for origin, status in ((front, 201), ("http://evil.com", 403), ("null", 403)):
            async with session.post(f"{front}/greenroom/v1/jobs", headers={"Origin": origin}, **order) as answer:
                assert answer.status == status, origin


async def test_events_and_commands_come_through(make_app: MakeApp, tmp_path: Path) -> None:
    async with (
        RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker,
        nginx(tmp_path, documented(await worker.url())) as front,
    ):
        await worker.logs("serving")
        port = int(front.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(DEADLINE):
            writer.write(b"GET /greenroom/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"event: board")
            job = await worker.start("over", timeout=20)
            await reader.readuntil(b"event: JobEnded")
        writer.close()
        process = await asyncio.create_subprocess_exec(
            GREENROOM, "jobs", "show", job["id"], "--url", f"{front}/greenroom", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert b"succeeded" in output


@pytest.mark.more
@pytest.mark.parametrize("name", ["blue", "calls"])  # the second is also a part of the page's own paths
async def test_all_pages_work_under_the_path_of_a_worker(make_app: MakeApp, tmp_path: Path, name: str) -> None:
    stay = NOOP.replace("return ctx.job.metadata", "await asyncio.sleep(3600)")
    async with RunningWorker(make_app(stay), "--num-idle-processes", "1", "--worker-name", name) as worker:
        job_id = (await worker.start({"caller": "Ada"}))["id"]
        config = documented(await worker.url()).replace("/greenroom/", f"/w/{name}/")
        async with nginx(tmp_path, config) as front, open_page(f"{front}/w/{name}/") as page:
            await expect(page.locator("#lights .s-running")).to_have_count(1)
            await page.click("text=Calls")
            await expect(page).to_have_url(f"{front}/w/{name}/calls")
            await expect(page.locator("#rows tr")).to_have_count(1)
            await page.fill("#search", "caller:Ada")
            await expect(page).to_have_url(f"{front}/w/{name}/calls?q=caller%3AAda")
            await page.reload()
            await page.click(f"text={job_id}")
            await expect(page).to_have_url(f"{front}/w/{name}/calls/{job_id}")
            await expect(page.locator("#title")).to_have_text(job_id)
            await page.click("#stack-button")
            await expect(page.locator("#stack")).to_contain_text("File")
            await page.click("#cancel-button")
            await expect(page.locator("#report")).to_contain_text("cancelled, cancelled")
            await page.click("text=all calls")
            await expect(page).to_have_url(f"{front}/w/{name}/calls")
            await page.click("h1 a")
            await expect(page).to_have_url(f"{front}/w/{name}/")
            await expect(page.locator("#ready")).to_have_text("ready")


@pytest.mark.parametrize(
    "name", sorted(path.name for path in PAGE.iterdir() if path.suffix in (".html", ".js", ".css"))
)
def test_no_file_of_the_page_names_the_root(name: str) -> None:
    assert not re.search(r"""["'`(=]/(?!/)\w""", (PAGE / name).read_text())
