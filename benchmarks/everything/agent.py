"""The app under soak: a LiveKit agent that takes jobs by HTTP as well. Copied into a folder of the run.

It writes down when an entrypoint is entered, and when a job is about to do what ends it.
"""

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import variant  # rewritten before each reload
from ledger_lines import note

from greenroom import Accept, App, Reject

EATEN_MB, BITE_MB = 600, 20
FOR_EVER = 3600


# --- by HTTP -------------------------------------------------------------------------------------


async def run(ctx) -> object:
    metadata = ctx.job.metadata
    note("enter", ctx.job.id)
    if metadata["plan"] == "overstay":
        await asyncio.sleep(FOR_EVER)
    if metadata["plan"] == "family":
        subprocess.Popen(["sleep", str(FOR_EVER)], start_new_session=True)
        # The resource tracker of multiprocessing removes it when this process is gone, however that ends. SharedMemory
        # registers a block that exists already: SIGKILL between the two would leave it.
        name = f"{os.environ['SOAK_RUN']}-{metadata['nonce']}"
        resource_tracker.register(f"/{name}", "shared_memory")
        SharedMemory(name, create=True, size=4096)
    await asyncio.sleep(metadata["seconds"])
    if metadata["plan"] == "hang at the end":
        ctx.add_shutdown_callback(lambda reason: asyncio.sleep(FOR_EVER))
    note("end", ctx.job.id)
    finish(metadata["plan"], metadata["nonce"])
    return metadata["nonce"]


def finish(plan: str, nonce: str) -> None:
    match plan:
        case "raise":
            raise RuntimeError(nonce)
        case "sys.exit":
            sys.exit(3)
        case "os._exit":
            os._exit(4)
        case "crash":
            ctypes.string_at(0)
        case "stall":
            time.sleep(FOR_EVER)
        case "hold the GIL":
            while True:  # the signal that has the stacks written ends each sleep
                ctypes.PyDLL(None).sleep(FOR_EVER)
        case "eat memory":
            eaten = []
            for _ in range(0, EATEN_MB, BITE_MB):
                eaten.append(b"x" * (BITE_MB << 20))
                time.sleep(0.02)
            time.sleep(FOR_EVER)


# --- both ----------------------------------------------------------------------------------------

# Without a LiveKit server there is no agent, and the app is Greenroom's alone.
is_agent = "LIVEKIT_URL" in os.environ
if is_agent:
    from livekit_agent import app

    livekit_preload, livekit_prewarm = app.preload_fn, app.prewarm_fn
    livekit_entrypoint, livekit_request = app.entrypoint_fn, app.request_fn
else:
    app = App()


def preload() -> None:
    variant.preload()
    if is_agent:
        livekit_preload()


async def prewarm(process) -> None:
    await variant.prewarm()
    if is_agent:
        await livekit_prewarm(process)


async def entrypoint(ctx) -> object:
    if isinstance(ctx.job.metadata, bytes):  # an order of LiveKit's; JSON never is
        return await livekit_entrypoint(ctx)
    return await run(ctx)


async def request(request) -> Accept | Reject:
    if isinstance(request.job.metadata, bytes):
        return await livekit_request(request)
    return Reject("by plan") if request.job.metadata["plan"] == "refused" else Accept()


app.preload_fn, app.prewarm_fn, app.entrypoint_fn, app.request_fn = preload, prewarm, entrypoint, request
