"""The real commands, run to their end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import commands
from server.running_worker import RunningWorker
from support import DEADLINE

__all__ = ["TELLING", "Done", "ask", "ask_all", "greenroom", "nobody_listening"]

TELLING = """
@app.entrypoint
async def entrypoint(ctx):
    match ctx.job.metadata:
        case "stay":
            await on_stage("job", ctx.job.id)
        case "raise":
            raise ValueError("a caller's \\x1b[31m text")
        case "shutdown":
            return {"told": await ctx.wait_for_shutdown()}
    return {"metadata": ctx.job.metadata}
"""
"""For a stage: a job that goes by its metadata."""


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def greenroom(*arguments: str, stdin: bytes | None = None, **environ: str) -> Done:
    """Run the command, with nothing of the test's own settings in its environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    pipe = asyncio.subprocess.PIPE
    process = await commands.start(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else pipe,
        stdout=pipe,
        stderr=pipe,
        env={**inherited, "COLUMNS": "200", "TERM": "dumb", **environ},
    )
    async with asyncio.timeout(DEADLINE * 2):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def ask(worker: RunningWorker, *arguments: str, stdin: bytes | None = None) -> Done:
    """Run the command against this worker."""
    return await greenroom(*arguments, stdin=stdin, GREENROOM_URL=await worker.url())


async def ask_all(urls: Sequence[str], *arguments: str, **environ: str) -> Done:
    """Run the command against several workers."""
    return await greenroom(*arguments, GREENROOM_URL=",".join(urls), **environ)


@contextmanager
def nobody_listening() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
