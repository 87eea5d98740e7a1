"""A call monitor: each call gets a process of its own, and all of them share one voice activity model.

Run it with `greenroom start examples/call_monitor/agent.py`, and give it calls with metadata such as
`{"caller": "+15550100", "speed": 1.0, "seconds": 10}`, of which every part may be left out.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import greenroom

if TYPE_CHECKING:
    from monitor import CallMonitor

app = greenroom.App()


@cache
def shared() -> CallMonitor:
    """The model and the recording, loaded at the first call of this function: the one in `preload`."""
    # Imported here: whoever only imports this file, as a supervisor may, needs no numpy or onnxruntime.
    from monitor import CallMonitor

    return CallMonitor.load()


@app.preload
def preload() -> None:
    """Once, in the zygote: what is loaded here is in every process, and costs each of them nothing."""
    shared().warm_up()


@app.prewarm
async def prewarm(proc: greenroom.JobProcess) -> None:
    """Once in each process, before it is offered a call: touch the memory that a call will write to."""
    shared().warm_up()


@app.entrypoint
async def entrypoint(ctx: greenroom.JobContext) -> object:
    """One call."""
    from monitor import CallWishes

    return await shared().monitor(CallWishes.from_metadata(ctx.job.metadata))
