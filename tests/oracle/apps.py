"""The apps of the scenarios, as source text; see ``Setting.app``."""

from __future__ import annotations

__all__ = ["ASKED", "BLOCKED", "ENDINGS", "PLAIN", "WARMING", "prewarm_that"]

PLAIN = """
VERSION = "old"

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        return await on_stage("job", ctx.job.id.replace(" ", "_"))
    if ctx.job.metadata == "raise":
        raise ValueError("no luck")
    return VERSION
"""

ENDINGS = """
import subprocess

@app.entrypoint
async def entrypoint(ctx):
    how = ctx.job.metadata
    if how == "stay":
        return await on_stage("job", ctx.job.id.replace(" ", "_"))
    if how == "shut down":
        ctx.shutdown("enough")
        return await ctx.wait_for_shutdown()
    if how == "wait":
        await on_stage("job", ctx.job.id.replace(" ", "_"))
        return await ctx.wait_for_shutdown()
    if how == "raise":
        raise ValueError("no luck")
    if how == "exit":
        sys.exit(7)
    if how == "exit at once":
        os._exit(3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "block":
        time.sleep(3600)
    if how == "leave children":
        for session in (False, True):
            subprocess.Popen(["sleep", "1000"], start_new_session=session)
    if how == "break the protocol":
        channel(socket.SOCK_STREAM).sendall(b"garbage" * 10)
        await asyncio.Event().wait()
    if how == "unsendable":
        return object()
    if how == "hold the callbacks":
        ctx.add_shutdown_callback(lambda: on_stage("callback", ctx.job.id.replace(" ", "_")))
    while how == "ignore":
        try:
            await on_stage("job", ctx.job.id.replace(" ", "_"))
        except asyncio.CancelledError:
            pass
    return "done"
"""

WARMING = PLAIN + '\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage("prewarm")\n'
"""Each process waits in its prewarm for an order to go on."""

BLOCKED = (
    "ALL_BLOCK = False\n"
    + PLAIN
    + """
async def block():
    if await on_stage("idle") == "block":
        block_on_stage("blocked")

@app.prewarm
async def prewarm(proc):
    if ALL_BLOCK or first():
        proc.userdata["block"] = asyncio.create_task(block())
"""
)
"""The first process (all with ``ALL_BLOCK``) can be ordered to block while it is idle: it acknowledges no job then."""

ASKED = (
    PLAIN
    + """
@app.request
async def request(request):
    how = request.job.metadata
    if how == "raise":
        raise RuntimeError("not today")
    if how == "slow":
        await asyncio.Event().wait()
    if how == "crash":
        os._exit(5)
    return greenroom.Reject("closed") if how == "reject" else greenroom.Accept({"name": "Ada"})
"""
)


def prewarm_that(does: str) -> str:
    """An app whose first process misbehaves in its prewarm."""
    return f"{PLAIN}\n@app.prewarm\ndef prewarm(proc):\n    if first():\n        {does}\n"
