"""One real participant in a room, in a process of its own: ``python participant.py``, driven by ``caller.py``.

LiveKit's native runtime leaves threads behind, which must not live in the process that runs the tests. Commands come
as JSON lines on stdin, the first of them ``join``. When stdin ends, the participant leaves.

    {"do": "join", "url": ..., "token": ..., "muted": false}    {"do": "hush"}
    {"do": "say", "what": 440 or "file.wav"}    {"do": "data", "text": ...}    {"do": "hang_up"}

A muted one publishes its microphone, and sends silence, only from its first "say" on.

Events go as JSON lines to stdout, each with ``at``, the monotonic clock in seconds, which all processes of one machine
share: connected, published, reconnecting, reconnected, disconnected (reason), failed (error); and about another one:
joined and attributes (identity, name, kind, attributes, metadata), left, subscribed (sid), heard (since), tone (hertz),
silent, data (text).
"""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import math
import os
import sys
import time
import traceback
import wave
from collections.abc import Iterator
from typing import Any

from livekit import rtc

RATE = 48_000
SPEECH_MS = 50  # frames are this long: many callers share a small machine, and each frame costs the same
SPEECH = RATE * SPEECH_MS // 1000  # samples
HEARING_MS = 20
AUDIBLE = 1_000  # amplitude, of 32,767; silence decodes to less than 10
STEADY = 5  # hertz, between two looks at a tone
TONE_FRAMES = 10  # after the first audible one, to tell the tone's frequency from
QUIET_FRAMES = 25  # half a second: what is heard after it is a new utterance


def tell(event: str, **fields: Any) -> None:
    # In one write: what the native library logs meanwhile must not come before the end of the line.
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n", end="", flush=True)


def facts(participant: rtc.Participant) -> dict[str, Any]:
    return {
        "identity": participant.identity,
        "name": participant.name,
        "kind": rtc.ParticipantKind.Name(participant.kind).removeprefix("PARTICIPANT_KIND_").lower(),
        "attributes": dict(participant.attributes),
        "metadata": participant.metadata,
    }


# --- speaking ------------------------------------------------------------------------------------


def tone(hertz: int) -> Iterator[bytes]:
    """Frames of a sine wave, for ever."""
    second = array.array("h", (int(12_000 * math.sin(math.tau * hertz * n / RATE)) for n in range(RATE))).tobytes()
    return itertools.cycle(frames_of(second))  # whole waves: no click where it begins anew


def recording(path: str) -> Iterator[bytes]:
    """Frames of a WAV file with 16-bit mono samples, played once."""
    with wave.open(path) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2), f"{path} is not 16-bit mono"
        resampler = rtc.AudioResampler(file.getframerate(), RATE)
        resampled = resampler.push(bytearray(file.readframes(file.getnframes()))) + resampler.flush()
    return frames_of(b"".join(bytes(frame.data) for frame in resampled))


def frames_of(samples: bytes) -> Iterator[bytes]:
    """Frames of equal length; the last is filled up with silence."""
    for start in range(0, len(samples), 2 * SPEECH):
        yield samples[start : start + 2 * SPEECH].ljust(2 * SPEECH, b"\0")


class Microphone:
    """A published track that is silent until there is something to say."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=2 * SPEECH_MS)  # short, so that "hush" is obeyed soon
        self._saying: Iterator[bytes] = iter(())
        self._asked = asyncio.Event()
        self.is_open = False

    async def open(self, room: rtc.Room) -> None:
        self.is_open = True
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

    def say(self, what: int | str) -> None:
        self._saying = recording(what) if isinstance(what, str) else tone(what)
        self._asked.set()

    def hush(self) -> None:
        self._saying = iter(())

    async def run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while frame := next(self._saying, None):
                # Returns in real time. What is not captured is sent as silence.
                await self._source.capture_frame(rtc.AudioFrame(frame, RATE, 1, SPEECH))


# --- hearing -------------------------------------------------------------------------------------


class Ear:
    """Listens to one participant's track and tells the beginning of each utterance, and its end."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._quiet = QUIET_FRAMES
        self._since = 0.0
        self._utterance: list[int] | None = None
        self._heard: int | None = None

    async def listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=HEARING_MS)
        async for event in stream:
            self._take(event.frame.data)
        await stream.aclose()

    def _take(self, samples: memoryview) -> None:
        audible = max(samples) >= AUDIBLE
        if audible and self._quiet >= QUIET_FRAMES:
            self._since, self._utterance, self._heard = time.monotonic(), [], None
        self._quiet = 0 if audible else self._quiet + 1
        if self._quiet == QUIET_FRAMES:
            tell("silent", identity=self._identity)
        if self._utterance is not None:
            self._utterance.extend(samples)
            if len(self._utterance) >= TONE_FRAMES * RATE * HEARING_MS // 1000:
                self._tell(frequency(self._utterance))

    def _tell(self, hertz: int) -> None:
        before, self._heard = self._heard, hertz
        if before is None:
            tell("heard", identity=self._identity, since=self._since)
        elif abs(hertz - before) <= STEADY:
            tell("tone", identity=self._identity, hertz=hertz)
            self._utterance = None
            return
        # Not yet: what a busy machine delivers late is replaced by noise for a moment.
        self._utterance = []


def frequency(samples: list[int]) -> int:
    """Of a pure tone, from how often it crosses zero; the first half is still fading in."""
    late = samples[len(samples) // 2 :]
    crossings = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(late))
    return round(crossings * RATE / len(late) / 2)


# --- the room ------------------------------------------------------------------------------------


class Participant:
    def __init__(self) -> None:
        self._room = rtc.Room()
        self._microphone = Microphone()
        self._tasks = set[asyncio.Task[None]]()
        self._gone = asyncio.Event()
        self._watch(self._room)

    def _watch(self, room: rtc.Room) -> None:
        room.on("participant_connected", lambda who: tell("joined", **facts(who)))
        room.on("participant_disconnected", lambda who: tell("left", identity=who.identity))
        room.on("participant_attributes_changed", lambda changed, who: tell("attributes", **facts(who)))
        room.on("data_received", self._on_data)
        room.on("track_subscribed", self._on_track)
        room.on("reconnecting", lambda: tell("reconnecting"))
        room.on("reconnected", lambda: tell("reconnected"))
        room.on("disconnected", self._on_disconnected)

    async def join(self, url: str, token: str, muted: bool) -> None:
        await self._room.connect(url, token)
        tell("connected", room=self._room.name, **facts(self._room.local_participant))
        for who in self._room.remote_participants.values():
            tell("joined", **facts(who))
        if not muted:
            await self._open_microphone()

    async def _open_microphone(self) -> None:
        await self._microphone.open(self._room)
        tell("published")
        self._start(self._microphone.run())

    async def obey(self, commands: asyncio.StreamReader) -> None:
        async for line in commands:
            order = json.loads(line)
            match order.pop("do"):
                case "join":
                    await self.join(**order)
                case "say":
                    if not self._microphone.is_open:
                        await self._open_microphone()
                    self._microphone.say(**order)
                case "hush":
                    self._microphone.hush()
                case "data":
                    await self._room.local_participant.publish_data(order["text"])
                case "hang_up":
                    break
                case unknown:
                    raise ValueError(f"unknown command {unknown!r}")

    async def run(self) -> None:
        """Until stdin ends, it is told to hang up, or the server ends the connection for good."""
        obeying = asyncio.create_task(self.obey(await stdin()))
        gone = asyncio.create_task(self._gone.wait())
        await asyncio.wait({obeying, gone}, return_when=asyncio.FIRST_COMPLETED)
        if obeying.done():
            obeying.result()
        await self._room.disconnect()
        if not self._gone.is_set():  # the room's own event comes now and then too late
            self._on_disconnected(rtc.DisconnectReason.CLIENT_INITIATED)

    def _on_track(self, track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        tell("subscribed", identity=who.identity, sid=publication.sid)
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._start(Ear(who.identity).listen(track))

    def _on_data(self, packet: rtc.DataPacket) -> None:
        who = packet.participant.identity if packet.participant else ""
        tell("data", identity=who, text=packet.data.decode())

    def _on_disconnected(self, reason: int) -> None:
        tell("disconnected", reason=rtc.DisconnectReason.Name(reason).lower())
        self._gone.set()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            tell("failed", error=repr(error))


async def stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def take_part() -> None:
    await Participant().run()  # made here: a room belongs to the running loop


def main() -> int:
    try:
        asyncio.run(take_part())
    except Exception as error:
        tell("failed", error=repr(error))
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    # The native runtime's own exit handlers abort the process now and then; the room has been left already.
    sys.stdout.flush()
    os._exit(code)
