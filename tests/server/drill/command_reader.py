"""An operator with a terminal: each command is counted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import datetime

from cli.client_commands import greenroom

from .facts import Facts

__all__ = ["MOST_COMMANDS", "read_commands"]

MOST_COMMANDS = 2
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}")


async def read_commands(url: str, commands: tuple[str, ...], facts: Facts) -> None:
    """Find all facts in the lines that the commands print."""
    assert len(commands) <= MOST_COMMANDS, commands
    lines: list[str] = []
    for command in commands:
        done = await greenroom(*shlex.split(facts.fill(command)), GREENROOM_URL=url)
        assert done.code == 0, done
        latest = done.out.splitlines()
        lines += latest
    missing = facts.missing(lines, latest, _times)
    assert not missing, f"{commands} leave open: {missing}\n" + "\n".join(lines)


def _times(text: str) -> Iterator[float]:
    for found in _TIME.findall(text):
        yield datetime.strptime(found, "%Y-%m-%d %H:%M:%S %z").timestamp()
