"""An operator with a browser: the status page is open, and each click and each search is counted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from playwright.async_api import Error, Page
from server.browser import open_page
from support import DEADLINE

from .facts import DAY, Facts

__all__ = ["MOST_CLICKS", "SIZES", "ZONE", "read_page"]

MOST_CLICKS = 3
SIZES = ({"width": 1280, "height": 900}, {"width": 390, "height": 844})
ZONE = ZoneInfo("Asia/Kolkata")
"""Where the operator is: not where the worker is."""
_TIME = re.compile(r"(?P<utc>(?P<date>\d{4}-\d\d-\d\d) )?(?P<clock>\d\d:\d\d:\d\d)")
_AGO = re.compile(r"\b([\d.]+) s ago\b")
_SEEN = """() => [...document.querySelectorAll("h2, li, p, tr, summary, dd, pre, span.badge")]
    .filter((one) => one.checkVisibility()).map((one) => one.innerText)"""
_CLICKABLE = "a, button, summary"


async def read_page(url: str, clicks: tuple[str, ...], facts: Facts) -> None:
    """Find all facts on the page, at each size of the window. A click is the text of a link, button or summary.

    A click that begins with ``?`` is a search.
    """
    assert len(clicks) <= MOST_CLICKS, clicks
    async with open_page(url, timezone_id=ZONE.key, locale="en-GB", expected=("status of 503",)) as page:
        for size in SIZES:
            await page.set_viewport_size(size)  # type: ignore[arg-type]
            await page.goto(url)
            seen: list[str] = []
            for click in clicks:
                seen += await _texts(page)
                await _do(page, facts.fill(click))
            await _know(page, facts, seen, size)


async def _do(page: Page, click: str) -> None:
    if click.startswith("?"):
        await page.get_by_role("searchbox").fill(click[1:])
    else:
        await page.locator(_CLICKABLE).filter(has_text=click, visible=True).first.click()


async def _know(page: Page, facts: Facts, seen: list[str], size: dict[str, int]) -> None:
    give_up = time.monotonic() + DEADLINE
    while missing := facts.missing([*seen, *(now := await _texts(page))], now, _times):
        assert time.monotonic() < give_up, f"{size}: the page leaves open: {missing}\n" + "\n".join([*seen, *now])
        await page.wait_for_timeout(100)
    assert await page.locator("main u").count() == 0, "the text of a caller is taken for HTML"


async def _texts(page: Page) -> list[str]:
    await page.wait_for_load_state()
    try:
        texts: list[str] = await page.evaluate(_SEEN)
    except Error as error:
        if "context was destroyed" in str(error):
            return []  # the next page comes
        raise
    return texts


def _times(text: str) -> Iterator[float]:
    """Yield the times that a text shows: in UTC with a date, or by the clock of the reader."""
    for match in _TIME.finditer(text):
        clock = datetime.strptime(match["clock"], "%H:%M:%S")
        if match["utc"]:
            day = datetime.strptime(match["date"], "%Y-%m-%d")
            yield datetime.combine(day, clock.time(), UTC).timestamp()
        else:
            today = datetime.combine(datetime.now(ZONE), clock.time(), ZONE)
            yield today.timestamp() % DAY
    for ago in _AGO.findall(text):
        yield time.time() - float(ago)
