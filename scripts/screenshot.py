"""Take the README's picture of the status page: a worker with sessions, of which some go wrong.

``python scripts/screenshot.py [FILE]``. Needs Chromium and the packages of the ``dev`` extra.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

from playwright.sync_api import sync_playwright

PORT = 8799
URL = f"http://127.0.0.1:{PORT}"
APP = """
import asyncio, os, random
import greenroom

app = greenroom.App()

@app.prewarm
async def prewarm(proc):
    proc.userdata["model"] = bytearray(2_000_000)

@app.entrypoint
async def entrypoint(ctx):
    held = bytearray(random.randint(1, 6) * 1_000_000)
    await asyncio.sleep(ctx.job.metadata["seconds"])
    if ctx.job.metadata["end"] == "raise":
        raise LookupError("no table is free at eight")
    if ctx.job.metadata["end"] == "crash":
        os.abort()
"""
OPTIONS = ["--num-idle-processes", "8", "--max-idle-processes", "8", "--max-jobs", "24", "--log-level", "error"]


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img/status-page.png")
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "agent.py")
        app.write_text(APP)
        greenroom = Path(sys.executable).with_name("greenroom")
        command = [greenroom, "dev", app.name, "--port", str(PORT), *OPTIONS]
        worker = subprocess.Popen(command, cwd=folder)
        try:
            take_picture(target)
        finally:
            worker.terminate()
            worker.wait()


def take_picture(target: Path) -> None:
    wait_until_ready()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 1330})
        page.goto(URL)
        run_sessions(seconds=75)
        page.locator("#reports summary").first.click()
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


def run_sessions(seconds: float) -> None:
    random.seed(7)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        how = random.choices(["return", "raise", "crash"], [20, 1, 1])[0]
        start_session({"seconds": random.uniform(2, 30), "end": how})
        time.sleep(random.expovariate(1.6))


def start_session(metadata: dict[str, object]) -> None:
    body = json.dumps({"metadata": metadata}).encode()
    request = urllib.request.Request(f"{URL}/v1/jobs", body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request).read()
    except HTTPError as error:
        error.read()  # turned down: that is in the picture, too


if __name__ == "__main__":
    main()
