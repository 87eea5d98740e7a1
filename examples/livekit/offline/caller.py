"""A participant that plays a person on the phone: it speaks when it is answered, and tells what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from livekit import rtc

from .speech import Samples, say

__all__ = ["IDENTITY", "RATE", "Caller"]

RATE = 24000
FRAME = RATE // 50
AUDIBLE = 300  # of 32767, in the mean of a frame: far above a codec's noise, far below any voice
IDENTITY = "caller"


class HungUp(Exception):
    """The room is gone: the agent has ended the call."""


class Caller:
    """One participant of a room. What happens there is told by `_changed`; nobody polls."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self._report = report
        self._room = rtc.Room()
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=100)
        self._mouth: asyncio.Queue[Samples] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._tasks = set[asyncio.Task[None]]()
        self._agent_state = ""
        self._answers = self._answers_before = self._heard_before = 0
        self._silent = True
        self._hung_up = False
        self.heard = 0  # audible frames of the agent
        self.tape = bytearray()  # all that was heard: 16-bit samples at `RATE`

    async def join(self, url: str, token: str) -> None:
        self._room.on("disconnected", self._on_disconnected)
        self._room.on("track_subscribed", self._on_track)
        self._room.on("participant_attributes_changed", self._on_attributes)
        self._room.register_text_stream_handler("lk.transcription", self._on_transcription)
        await self._room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        await self._room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )
        self._start(self._talk())

    async def converse(self, sentences: list[str], stay: bool) -> None:
        """The whole call. A sentence that nobody answers is waited for; the caller of this sets the limit."""
        try:
            for sentence in sentences:
                interrupts = sentence.startswith("!")
                await (self._begun() if interrupts else self._answered())
                await self._say(sentence.removeprefix("!"), interrupts)
            await self._answered()
            while stay:
                await self._until(lambda: False)
        except HungUp:
            self._report({"event": "hung up by the agent"})

    async def leave(self) -> None:
        await self._room.disconnect()
        for task in self._tasks:
            task.cancel()  # a frame that nobody takes any more is waited for without end
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()

    @property
    def heard_seconds(self) -> float:
        """For how long the agent was heard, silence left out."""
        return self.heard * FRAME / RATE

    async def _answered(self) -> None:
        """The agent has said something since this caller spoke, and is listening again."""
        before = self._answers_before
        await self._until(lambda: self._answers > before and self._agent_state == "listening")

    async def _begun(self) -> None:
        """The agent has been heard for half a second since this caller spoke."""
        before = self._heard_before
        await self._until(lambda: self.heard > before + 25)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._hung_up:
                raise HungUp
            self._changed.clear()
            await self._changed.wait()

    # --- the mouth -------------------------------------------------------------------------------

    async def _say(self, sentence: str, interrupts: bool) -> None:
        self._report({"event": "said", "text": sentence})
        samples = await asyncio.to_thread(say, sentence, RATE)
        # What is left of an answer that is interrupted is not the answer to what interrupts it.
        self._answers_before = self._answers_before + 1 if interrupts else self._answers
        self._heard_before, self._silent = self.heard, False
        await self._mouth.put(samples)
        await self._until(lambda: self._silent)

    async def _talk(self) -> None:
        """A line that is open all the time: what is to be said, else silence. The source keeps the pace."""
        silence = np.zeros(FRAME, np.int16)
        while True:
            samples = silence if self._mouth.empty() else await self._mouth.get()
            padded = np.concatenate([samples, np.zeros(-len(samples) % FRAME, np.int16)])
            for frame in padded.reshape(-1, FRAME):
                await self._source.capture_frame(rtc.AudioFrame(frame.tobytes(), RATE, 1, FRAME))
            if len(samples) > FRAME:
                self._silent = True
                self._changed.set()

    # --- the ears --------------------------------------------------------------------------------

    def _on_track(self, track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._start(self._listen(rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)))

    async def _listen(self, stream: rtc.AudioStream) -> None:
        try:
            async for event in stream:
                self._hear(bytes(event.frame.data))
        finally:
            await stream.aclose()

    def _hear(self, pcm: bytes) -> None:
        self.tape += pcm
        if np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)).mean() > AUDIBLE:
            self.heard += 1
            self._changed.set()

    def _on_transcription(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._start(self._read(reader, identity))

    async def _read(self, reader: rtc.TextStreamReader, identity: str) -> None:
        text = ""
        try:
            async for chunk in reader:
                text += chunk
        except rtc.StreamError:
            pass  # the room ended first; what has come is what was said
        finally:
            self._note(text, identity, reader.info.attributes or {})

    def _note(self, text: str, identity: str, attributes: dict[str, str]) -> None:
        if identity != IDENTITY:
            self._answers += 1
            self._report({"event": "heard", "text": text})
        elif attributes.get("lk.transcription_final") == "true":
            self._report({"event": "understood", "text": text})
        self._changed.set()

    def _on_attributes(self, changed: dict[str, str], participant: rtc.Participant) -> None:
        if "lk.agent.state" in changed:
            self._agent_state = changed["lk.agent.state"]
            self._changed.set()

    def _on_disconnected(self, *_: object) -> None:
        self._hung_up = True
        self._changed.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
