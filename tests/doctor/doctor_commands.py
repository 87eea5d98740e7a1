"""Running the real command in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from support import DEADLINE

__all__ = ["GREENROOM", "Told", "tell"]

GREENROOM = str(Path(sys.executable).with_name("greenroom"))


class Told(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def findings(self, topic: str) -> list[dict[str, str]]:
        return [finding for finding in self.json["findings"] if finding["topic"] == topic]


async def tell(*arguments: str, **spawn: Any) -> Told:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(GREENROOM, *arguments, stdout=pipe, stderr=pipe, **spawn)
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate()
    return Told(process.returncode or 0, out.decode(), err.decode())
