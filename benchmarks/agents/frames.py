"""An agent that listens and speaks all the time, in frames of 20 ms, and counts the frames that are late.

Written for livekit-agents, with nothing of Greenroom in it. Each frame goes through a voice activity detector (Silero,
offline) and out as audio. A frame is late if it is done more than 20 ms after it was due. Once a second the agent adds
a line to a file in the folder ``FRAMES``: its time, its frames and how many were late.
"""

import asyncio
import json
import math
import os
import random
import time
from pathlib import Path

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobProcess, cli
from livekit.plugins import silero

FRAME = 0.02
HEARD, SPOKEN = 16_000, 48_000
threshold = os.environ.get("THRESHOLD")

server = AgentServer(num_idle_processes=int(os.environ.get("IDLE", "3")), initialize_process_timeout=60.0, port=0)
if threshold is not None:
    server.update_options(load_threshold=math.inf if threshold == "off" else float(threshold))


def setup(proc: JobProcess) -> None:
    proc.userdata["vad"] = silero.VAD.load()
    noise = random.Random(0)
    proc.userdata["noise"] = bytes(noise.randrange(256) for _ in range(2 * int(HEARD * FRAME)))
    samples = (int(9_000 * math.sin(math.tau * 440 * n / SPOKEN)) for n in range(int(SPOKEN * FRAME)))
    proc.userdata["tone"] = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)


server.setup_fnc = setup


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    source = rtc.AudioSource(SPOKEN, 1, queue_size_ms=200)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    await ctx.room.local_participant.publish_track(track)
    heard = ctx.proc.userdata["vad"].stream()
    listening = asyncio.create_task(drain(heard))
    with Path(os.environ["FRAMES"], f"{ctx.room.name}.jsonl").open("w", buffering=1) as notes:
        try:
            await frames(ctx.proc.userdata, heard, source, notes)
        finally:
            listening.cancel()


async def frames(prepared, heard, source, notes) -> None:
    noise, tone = prepared["noise"], prepared["tone"]
    due, done, late = time.monotonic(), 0, 0
    while True:
        due += FRAME
        await asyncio.sleep(due - time.monotonic())
        heard.push_frame(rtc.AudioFrame(noise, HEARD, 1, len(noise) // 2))
        await source.capture_frame(rtc.AudioFrame(tone, SPOKEN, 1, len(tone) // 2))
        behind = time.monotonic() - due
        missed = int(behind / FRAME)  # due meanwhile: what is played then is a gap
        done, late, due = done + 1 + missed, late + missed, due + missed * FRAME
        if done >= 50:
            notes.write(json.dumps({"at": time.time(), "frames": done, "late": late}) + "\n")
            done = late = 0


async def drain(heard) -> None:
    async for _ in heard:
        pass


if __name__ == "__main__":
    cli.run_app(server)
