"""A real Chromium for tests of the page: the one that is installed; none is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright
from support import DEADLINE

__all__ = ["open_page"]

# As root in a container there is no sandbox; and nothing but the page is to be fetched from anywhere.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is not None:
        return path
    message = "there is no Chromium on this machine (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def open_page(url: str, *, expected: tuple[str, ...] = (), **context: object) -> AsyncIterator[Page]:
    """The page in a window of its own. What it logs as an error, or cannot load, fails the test, unless expected."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_chromium(), args=_ARGUMENTS, timeout=DEADLINE * 1000
        )
        try:
            page = await (await browser.new_context(**context)).new_page()  # type: ignore[arg-type]
            page.set_default_timeout(DEADLINE * 1000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            await page.goto(url)
            yield page
        finally:
            await browser.close()
    allowed = (*expected, "401", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")
    wrong = [complaint for complaint in complaints if not any(text in complaint for text in allowed)]
    assert not wrong, wrong
