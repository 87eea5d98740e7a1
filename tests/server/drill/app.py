"""The app of the drill: each call does what its metadata says. A line that an incident leads to has a mark."""

from __future__ import annotations

from pathlib import Path

__all__ = ["APP", "FAILS", "GATE", "place_of"]

GATE, FAILS = "DRILL_GATE", "DRILL_FAILS"
"""Variables with the path of a file: while the first is missing the app loads; while the second is there, prewarm
raises."""

APP = f"""
import logging

def is_there(name):
    return os.path.exists(os.environ[name])

while not is_there({GATE!r}):
    time.sleep(0.01)

@app.prewarm
async def prewarm(proc):
    if is_there({FAILS!r}):
        raise ConnectionError("refused")  # MARK prewarm

@app.entrypoint
async def entrypoint(ctx):
    act = ctx.job.metadata["act"]
    logging.getLogger("bot").info("the call does: %s", act)
    if act == "return":
        return "done"
    if act == "raise":
        raise KeyError("menu")  # MARK raise
    if act == "crash":
        os.abort()  # MARK crash
    if act == "block":
        time.sleep(3600)  # MARK block
    if act == "leak":
        held = []
        while True:
            held.append(bytearray(5 << 20)) or time.sleep(0.02)  # MARK leak
    try:
        await asyncio.sleep(3600)
    finally:
        if act == "linger":
            time.sleep(3600)  # MARK linger
"""


def place_of(path: Path, mark: str) -> tuple[str, int]:
    """Return the file and the line with a mark."""
    (line,) = (n for n, text in enumerate(path.read_text().splitlines(), 1) if text.endswith(f"# MARK {mark}"))
    return str(path), line
