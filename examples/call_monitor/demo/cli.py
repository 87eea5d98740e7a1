"""The demo's command: reads the options, picks a stage, runs, and prints the account."""

from __future__ import annotations

import asyncio
import io
import os
import sys

from rich.console import Console

from .closing import print_closing
from .director import Director, Ending
from .options import DemoOptions, parse
from .plain import Plain
from .screen import Screen
from .worker import WorkerFailed

WIDTH_WITHOUT_TERMINAL = 100


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where it is not UTF-8, question marks will do
    console = _console()
    try:
        ending = asyncio.run(_run(options, console))
    except WorkerFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before anything was started
        return 130
    print_closing(console, options, ending)
    return ending.exit_code


async def _run(options: DemoOptions, console: Console) -> Ending:
    is_live = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    with Screen(console, options) if is_live else Plain(sys.stdout) as stage:
        return await Director(options, stage).run()


def _console() -> Console:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(width=width)
