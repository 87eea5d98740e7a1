"""What the agents here do in a room: they answer each sound with a tone, and break when they are told to.

Written as a user of livekit-agents would, with nothing of Greenroom in it. Job metadata breaks the start: ``raise``,
``exit``, ``stay out`` (never joins); or it is the path of a file, without which the end waits. A data message breaks
the call: see ``FATES``.
"""

from __future__ import annotations

import array
import asyncio
import logging
import math
import os
import signal
import time
from typing import Any

from livekit import rtc
from livekit.agents import JobContext, JobProcess, JobRequest

RATE = 48_000
FRAME = RATE // 50  # samples in 20 ms
HERTZ = 880
AUDIBLE = 1_000  # amplitude, of 32,767

logger = logging.getLogger("answering")


def setup(proc: JobProcess) -> None:
    """What is prepared before a call: a second of a tone, in frames."""
    waves = (int(12_000 * math.sin(math.tau * HERTZ * n / RATE)) for n in range(RATE))
    second = array.array("h", waves).tobytes()
    proc.userdata["tone"] = [second[start : start + 2 * FRAME] for start in range(0, len(second), 2 * FRAME)]
    logger.info("process %d is set up", os.getpid())


async def request(request: JobRequest) -> None:
    if request.job.metadata == "reject":
        await request.reject()
    else:
        await request.accept(name="Answering machine", attributes={"asked": "yes"})


async def session_ended(ctx: JobContext) -> None:
    while ctx.job.metadata.startswith("/") and not os.path.exists(ctx.job.metadata):
        await asyncio.sleep(0.01)
    logger.info("session of %s ended", ctx.room.name)


class Answerer:
    """Says its tone for as long as it hears somebody."""

    def __init__(self, tone: list[bytes]) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=50)
        self._tone = tone
        self._said = 0

    async def open(self, room: rtc.Room) -> None:
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

    async def listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        async for event in stream:
            if max(event.frame.data) >= AUDIBLE:
                await self._say(self._tone[self._said % len(self._tone)])
                self._said += 1
        await stream.aclose()

    async def _say(self, samples: bytes) -> None:
        await self._source.capture_frame(rtc.AudioFrame(samples, RATE, 1, FRAME))


async def answer(ctx: JobContext) -> None:
    entered, entered_ns = time.monotonic(), time.time_ns()
    break_start(ctx.job.metadata)
    answerer = Answerer(ctx.proc.userdata["tone"])
    tasks = set[asyncio.Task[None]]()

    def listen(track: rtc.Track, *_: Any) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            tasks.add(asyncio.create_task(answerer.listen(track)))

    def obey(packet: rtc.DataPacket) -> None:
        if fate := FATES.get(packet.data.decode()):
            fate(ctx)

    async def ended(reason: str) -> None:
        logger.info("call in %s ended: %s", ctx.room.name, reason)

    ctx.room.on("track_subscribed", listen)
    ctx.room.on("data_received", obey)
    ctx.add_shutdown_callback(ended)
    await ctx.connect()
    connected = time.monotonic()
    await answerer.open(ctx.room)
    facts = {
        "pid": os.getpid(),
        "entered": entered,
        "connected": connected,
        "picked_up": (entered_ns - ctx.job.state.started_at) / 1e9,  # since the server made its offer
        "job": ctx.job.id,
    }
    await ctx.room.local_participant.set_attributes({name: str(value) for name, value in facts.items()})


def break_start(how: str) -> None:
    match how:
        case "raise":
            raise RuntimeError("told to raise")
        case "exit":
            os._exit(3)
        case "stay out":
            time.sleep(3600)


FATES = {
    "leave": lambda ctx: ctx.shutdown("told to leave"),
    "delete": lambda ctx: ctx.delete_room(),
    "exit": lambda ctx: os._exit(3),
    "abort": lambda ctx: os.abort(),
    "kill": lambda ctx: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda ctx: os.kill(os.getpid(), signal.SIGSTOP),
    "block": lambda ctx: time.sleep(3600),
}
