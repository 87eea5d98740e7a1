"""Live view on a terminal: it draws the workers or one job after each change, and passes on the actions of keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from ...command_exit_codes import ExitCode
from ..workers import Workers
from .actions import Quit
from .controls import Controls
from .draw import Scene, draw
from .draw_job import draw_job
from .feed import Feed
from .keys import reading_keys
from .listing import Listing
from .performer import Performer
from .tasks import Tasks
from .watched import Watched

__all__ = ["LiveView", "print_once"]

_SHORTEST_FRAME = 0.2
_LONGEST_FRAME = 1.0
"""Seconds between two drawings."""


def print_once(watched: Sequence[Watched]) -> None:
    """Print the workers with as many lines as needed. Without a terminal, there are no control characters."""
    console = _console()
    for line in draw(watched, Scene(time.time(), console.width, None)):
        console.print(line, overflow="ignore", no_wrap=True, crop=False)


class LiveView:
    """Live view, which is shown until the user quits, or until the only worker does not accept the token any more.

    ``watched`` has the workers in the order of their clients.
    """

    def __init__(self, workers: Workers, watched: Sequence[Watched]) -> None:
        self._workers = workers
        self._watched = watched
        self._controls = Controls()
        self._tasks = Tasks(self._wake)
        self._performer = Performer(workers, watched, self._controls, self._tasks, self._wake)
        self._console = _console()
        self._is_stale = asyncio.Event()
        self._exit_code: int | None = None

    async def run(self) -> int:
        """Show the view, restore the terminal, and return the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._wake)
        loop.add_signal_handler(signal.SIGTERM, self._quit, ExitCode.SIGNALLED + signal.SIGTERM)
        for client, worker in zip(self._workers.clients, self._watched, strict=True):
            feed = Feed(client, worker, self._wake, is_only=not self._workers.are_several)
            self._tasks.start(feed.run())
        self._tasks.start(self._performer.finder.run())
        try:
            with reading_keys(sys.stdin.fileno(), self._press), self._screen() as screen:
                while self._exit_code is None and self._tasks.error is None:
                    self._draw(screen)
                    await self._next_frame()
        finally:
            await self._tasks.cancel()
        if self._exit_code is None and self._tasks.error is not None:
            raise self._tasks.error
        return self._exit_code or ExitCode.OK

    async def _next_frame(self) -> None:
        """Wait for a change, for at least ``_SHORTEST_FRAME`` and about ``_LONGEST_FRAME`` at most."""
        await asyncio.sleep(_SHORTEST_FRAME)
        with suppress(TimeoutError):  # ages change even if nothing happens
            await asyncio.wait_for(self._is_stale.wait(), _LONGEST_FRAME)
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
        screen.update(Group(*self._lines(width, height)), refresh=True)

    def _lines(self, width: int, height: int) -> list[Text]:
        controls, performer = self._controls, self._performer
        scene = Scene(
            now=time.time(),
            width=width,
            height=height,
            selected=controls.selected,
            last_line=controls.line,
            typed=controls.typed,
            found=performer.finder.found,
        )
        if performer.opened is not None and controls.opened is not None:
            is_lost = self._watched[controls.opened.worker].loss is not None
            return draw_job(performer.opened, scene, is_lost=is_lost)
        for client, worker in zip(self._workers.clients, self._watched, strict=True):
            worker.name = self._workers.name_of(client)
        return draw(self._watched, scene)

    def _wake(self) -> None:
        self._is_stale.set()

    def _quit(self, code: int) -> None:
        self._exit_code = code
        self._wake()

    def _press(self, key: str) -> None:
        listing = Listing.of(self._watched, self._performer.finder.found)
        action = self._controls.press(key, listing, page=max(self._console.height // 2, 1))
        if isinstance(action, Quit):
            self._quit(ExitCode.OK)
        elif action is not None:
            self._performer.perform(action)
        self._wake()


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal's encoding lacks are replaced
    return Console(highlight=False)
