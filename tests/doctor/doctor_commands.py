"""Running the real command in a process of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import commands
from support import DEADLINE

__all__ = ["TAKES_ARGUMENTS", "Told", "tell"]

TAKES_ARGUMENTS = """
assert sys.argv[1:] == ["start", "--lang", "fr"], sys.argv

@app.entrypoint
async def entrypoint(ctx): ...
"""


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
    process = await commands.start(*arguments, stdout=pipe, stderr=pipe, **spawn)
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate()
    return Told(process.returncode or 0, out.decode(), err.decode())
