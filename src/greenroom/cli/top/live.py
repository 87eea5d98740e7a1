"""Live view on a terminal: it draws the picture after each change, and performs the actions of keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from urllib.parse import quote

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from ...command_exit_codes import ExitCode
from ..client import Client
from ..printing import Failure
from .controls import Cancel, Controls, Quit
from .draw import Scene, draw
from .feed import Feed
from .keys import reading_keys
from .picture import Picture

__all__ = ["LiveView", "print_once"]

_SHORTEST_FRAME = 0.2
_LONGEST_FRAME = 1.0
"""Seconds between two drawings. Ages change even if nothing happens."""


def print_once(picture: Picture) -> None:
    """Print a picture with as many lines as needed. Without a terminal, there are no control characters."""
    console = _console()
    for line in draw(picture, Scene(time.time(), console.width, None)):
        console.print(line, overflow="ignore", no_wrap=True, crop=False)


class LiveView:
    """Live view, which is shown until the user quits."""

    def __init__(self, client: Client, picture: Picture) -> None:
        self._client = client
        self._picture = picture
        self._feed = Feed(client, picture, self._wake)
        self._controls = Controls()
        self._console = _console()
        self._is_stale = asyncio.Event()
        self._exit_code: int | None = None
        self._cancelling: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Show the view, restore the terminal, and return the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._wake)
        loop.add_signal_handler(signal.SIGTERM, self._quit, ExitCode.SIGNALLED + signal.SIGTERM)
        feeding = asyncio.create_task(self._feed.run())
        try:
            with reading_keys(sys.stdin.fileno(), self._press), self._screen() as screen:
                while self._exit_code is None and not feeding.done():
                    self._draw(screen)
                    await self._next_frame(feeding)
        finally:
            feeding.cancel()
            for task in self._cancelling:
                task.cancel()
            await asyncio.gather(*self._cancelling, return_exceptions=True)
        if self._exit_code is None:
            await feeding  # raises the error that ended the feed
        with suppress(asyncio.CancelledError):
            await feeding
        return self._exit_code or ExitCode.OK

    async def _next_frame(self, feeding: asyncio.Task[None]) -> None:
        """Wait for a change, for at least ``_SHORTEST_FRAME`` and about ``_LONGEST_FRAME`` at most."""
        await asyncio.sleep(_SHORTEST_FRAME)
        stale = asyncio.create_task(self._is_stale.wait())
        await asyncio.wait([stale, feeding], timeout=_LONGEST_FRAME, return_when=asyncio.FIRST_COMPLETED)
        stale.cancel()
        self._is_stale.clear()

    def _screen(self) -> Live:
        return Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def _draw(self, screen: Live) -> None:
        # Read each time, and not from COLUMNS and LINES, since the window may be resized.
        width, height = os.get_terminal_size(sys.stdout.fileno())
        self._console.size = ConsoleDimensions(width or 80, height or 24)  # some terminals report a size of 0
        width, height = self._console.size
        controls = self._controls
        scene = Scene(time.time(), width, height, self._feed.is_lost, controls.selected, controls.line)
        screen.update(Group(*draw(self._picture, scene)), refresh=True)

    def _wake(self) -> None:
        self._is_stale.set()

    def _quit(self, code: int) -> None:
        self._exit_code = code
        self._wake()

    # --- keys ------------------------------------------------------------------------------------

    def _press(self, key: str) -> None:
        live = [session["id"] for session in self._picture.live_sessions()]
        match self._controls.press(key, live, page=max(self._console.height // 2, 1)):
            case Quit():
                self._quit(ExitCode.OK)
            case Cancel(job_id):
                task = asyncio.create_task(self._cancel(job_id))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)
        self._wake()

    async def _cancel(self, job_id: str) -> None:
        try:
            answer = await self._client.delete(
                f"/v1/jobs/{quote(job_id, safe='')}", {"reason": "cancelled in greenroom top"}
            )
            progress = "had already ended" if answer.status == 200 else "is being cancelled"
            self._controls.message = f"job {job_id} {progress}"
        except Failure as error:
            self._controls.message = f"job {job_id} could not be cancelled: {error}"
        self._wake()


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal's encoding lacks are replaced
    return Console(highlight=False)
