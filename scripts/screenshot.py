"""Take the pictures of the pages for README and docs: a worker with sessions, of which some go wrong.

``python scripts/screenshot.py [FOLDER]``. Needs Chromium and the packages of the ``dev`` extra. Takes two minutes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from playwright.sync_api import Page, sync_playwright

PORT = 8799
URL = f"http://127.0.0.1:{PORT}"
APP = """
import asyncio, logging, os, random, time
import greenroom

app = greenroom.App()

@app.prewarm
async def prewarm(proc):
    proc.userdata["model"] = bytearray(2_000_000)

@app.entrypoint
async def entrypoint(ctx):
    call = ctx.job.metadata
    held = bytearray(random.randint(1, 6) * 1_000_000)
    logging.getLogger("bot").info("hello %s", call["caller"])
    if call.get("end") == "block":
        logging.getLogger("bot").warning("the CRM does not answer")
        await asyncio.sleep(1)
        time.sleep(3600)
    await asyncio.sleep(call.get("seconds", 3600))
    if call.get("end") == "raise":
        raise LookupError("no table is free at eight")
    if call.get("end") == "crash":
        os.abort()
"""
OPTIONS = ["--max-idle-processes", "8", "--max-jobs", "24", "--stall-timeout", "off", "--log-level", "error"]
SHORTEN = r"""() => {
    const start = /^.*[/](?:src|site-packages|python3[.][0-9]+|tmp[^/]+)[/]/;
    for (const pre of document.querySelectorAll("pre:not(#log)")) {
        pre.textContent = pre.textContent.replace(/File "([^"]+)"/g, (_, path) => `File "${path.replace(start, "")}"`);
    }
}"""
"""Paths of this machine are of no interest to readers."""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img")
    with worker(idle=8):
        take(folder / "status-page.png", "", (1180, 1330), show_status_page)
    with worker(idle=4):
        call_in_all_ways()
        take(folder / "calls.png", "/calls", (1280, 860), lambda page: page.wait_for_selector("text=stuck"))
        take(folder / "call.png", "/calls/call-2048", (1280, 1250), show_stack)


@contextmanager
def worker(idle: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "agent.py").write_text(APP)
        greenroom = Path(sys.executable).with_name("greenroom")
        options = ["--port", str(PORT), "--num-idle-processes", str(idle), *OPTIONS]
        process = subprocess.Popen([greenroom, "dev", "agent.py", *options], cwd=folder)
        try:
            wait_until_ready()
            yield
        finally:
            process.terminate()
            process.send_signal(signal.SIGINT)  # do not wait for the sessions
            process.wait()


def take(target: Path, path: str, size: tuple[int, int], show: Callable[[Page], object]) -> None:
    """Take a picture of a page, once it is as it should be."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(f"{URL}{path}")
        show(page)
        page.evaluate(SHORTEN)
        page.screenshot(path=target)
        browser.close()


def wait_until_ready() -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{URL}/readyz")
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the worker did not become ready")


# --- the status page -----------------------------------------------------------------------------


def show_status_page(page: Page) -> None:
    random.seed(7)
    end = time.monotonic() + 75
    while time.monotonic() < end:
        how = random.choices(["return", "raise", "crash"], [20, 1, 1])[0]
        caller = f"+1555{random.randrange(10_000):04d}"
        start_session({"caller": caller, "seconds": random.uniform(2, 30), "end": how})
        time.sleep(random.expovariate(1.6))
    for name in ("turned-down", "reports"):
        page.locator(f"#{name} summary").first.click()


def start_session(metadata: dict[str, object], job_id: str | None = None) -> Any:
    body = json.dumps({"metadata": metadata, "id": job_id, "timeout": 10}).encode()
    request = urllib.request.Request(f"{URL}/v1/jobs", body, {"Content-Type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(request))
    except HTTPError as error:
        return json.load(error)  # rejected: that is in the picture, too


# --- the calls -----------------------------------------------------------------------------------


def call_in_all_ways() -> None:
    queues = ("blue hall", "billing", "support", "reservations")
    for number, queue in enumerate(queues):
        start_session({"caller": f"+1555010{number}", "queue": queue}, f"call-{2041 + number}")
    for number in range(3):
        start_session({"caller": f"+1555020{number}", "seconds": 0.1, "end": "raise"}, f"call-{2045 + number}")
    start_session({"caller": "+15550300", "queue": "support", "end": "block"}, "call-2048")
    victim = start_session({"caller": "+15550400", "queue": "billing"}, "call-2049")
    time.sleep(20)  # for memory and CPU to be measured a few times
    os.kill(victim["pid"], signal.SIGKILL)


def show_stack(page: Page) -> None:
    page.click("#stack-button")
    page.wait_for_selector("#stack:has-text('in entrypoint')")


if __name__ == "__main__":
    main()
