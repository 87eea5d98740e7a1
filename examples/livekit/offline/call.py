"""``python -m examples.livekit.offline.call``: a caller without a person. It joins a room, listens, and speaks.

The caller speaks each SENTENCE after the agent has answered the sentence before. A sentence that begins with ``!``
interrupts the agent. The caller hangs up when the agent does. Without ``--stay``, it also hangs up after the answer to
its last sentence. It prints a line of JSON for each sentence that it says or hears, and for the end of the call. The
field `at` is in seconds since the call began. Exit code: 0 if the call came to its end, 1 if it took too long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import wave
from collections.abc import Callable
from typing import Any

from livekit import api

from .caller import IDENTITY, RATE, Caller


def token(room: str) -> str:
    """Of LIVEKIT_API_KEY and LIVEKIT_API_SECRET."""
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken().with_identity(IDENTITY).with_grants(grants).to_jwt()


async def call(options: argparse.Namespace) -> bool:
    """Returns whether the call went to its end in time."""
    report = _printer()
    caller = Caller(report)
    in_time = False
    try:
        async with asyncio.timeout(options.limit):
            await caller.join(os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880"), token(options.room))
            report({"event": "joined", "room": options.room})
            await caller.converse(options.sentence, options.stay)
            in_time = True
    except TimeoutError:
        report({"event": "gave up", "after": options.limit})
    finally:
        await caller.leave()
        report({"event": "left", "heard_seconds": round(caller.heard_seconds, 2)})
        if options.record:
            _keep(options.record, caller.tape)
    return in_time


def _keep(path: str, tape: bytearray) -> None:
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(tape)


def _printer() -> Callable[[dict[str, Any]], None]:
    began = time.monotonic()

    def print_event(event: dict[str, Any]) -> None:
        # In one write: what the native library logs meanwhile must not come before the end of the line.
        print(json.dumps({"at": round(time.monotonic() - began, 1), **event}) + "\n", end="", flush=True)

    return print_event


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.livekit.offline.call", description=__doc__)
    parser.add_argument("sentence", nargs="*", help="sentence in the words of caller.gram")
    parser.add_argument("--room", default="restaurant", help="room to join; a new room gets an agent")
    parser.add_argument("--limit", type=float, default=120.0, help="longest time of the call, in seconds")
    parser.add_argument("--stay", action="store_true", help="wait until the agent hangs up")
    parser.add_argument("--record", help="WAV file for the sound that the caller hears")
    in_time = asyncio.run(call(parser.parse_args()))
    # Nothing is left to be done, and the native runtime's own exit handlers abort the process now and then.
    sys.stdout.flush()
    os._exit(0 if in_time else 1)


if __name__ == "__main__":
    main()
