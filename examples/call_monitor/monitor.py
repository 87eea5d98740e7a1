"""The job itself: one recorded call, heard at the pace of a call, told apart into talk and silence."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from audio import FRAME_SECONDS, Line, Samples, read_recording
from vad import WINDOW_SAMPLES, Spurt, TalkSpurts, VoiceDetector, VoiceModel

log = logging.getLogger("call_monitor")

RECORDING = Path(__file__).with_name("call.wav")


@dataclass(frozen=True)
class CallWishes:
    """What a job's metadata may say about its call."""

    caller: str = "unknown"
    speed: float = 1.0
    seconds: float | None = None

    @classmethod
    def from_metadata(cls, metadata: object) -> CallWishes:
        """Read a job's metadata; what it does not say takes its default."""
        if metadata is None:
            return cls()
        if not isinstance(metadata, Mapping):
            raise ValueError(f"metadata: need an object such as {{'caller': '+1555'}}, got {metadata!r}")
        seconds = metadata.get("seconds")
        return cls(
            caller=str(metadata.get("caller", cls.caller)),
            speed=_positive("speed", metadata.get("speed", cls.speed)),
            seconds=None if seconds is None else _positive("seconds", seconds),
        )


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"metadata: {name} must be a number above 0, got {value!r}")
    return float(value)


class CallResult(TypedDict):
    """What is told of a call: plain data, as a job's result must be."""

    caller: str
    talk_spurts: list[list[float]]
    talk_seconds: float
    silence_seconds: float
    frames: int
    late_frames: int
    worst_lateness_ms: float


@dataclass
class Listener:
    """Hears one call, and remembers its talk."""

    caller: str
    detector: VoiceDetector
    spurts: TalkSpurts = field(default_factory=TalkSpurts)
    heard: list[Spurt] = field(default_factory=list)

    def hear(self, frame: Samples) -> None:
        """Take the next frame of the call."""
        for likelihood in self.detector.feed(frame):
            self._remember(self.spurts.push(likelihood))

    def hang_up(self) -> None:
        """End the call, and with it a spurt that is still on."""
        self._remember(self.spurts.finish())

    def _remember(self, spurt: Spurt | None) -> None:
        if spurt is not None:
            self.heard.append(spurt)
            log.info("%s talked from %.2f to %.2f s", self.caller, spurt.start, spurt.end)


@dataclass(frozen=True)
class CallMonitor:
    """What all calls share: the model and the recording, loaded once and only read from then on."""

    model: VoiceModel
    recording: Samples

    @classmethod
    def load(cls) -> CallMonitor:
        """Load the model and the recording."""
        return cls(VoiceModel(), read_recording(RECORDING))

    def warm_up(self) -> None:
        """Run the model once: its first inference is the dear one."""
        VoiceDetector(self.model).feed(self.recording[:WINDOW_SAMPLES])

    async def monitor(self, wishes: CallWishes) -> CallResult:
        """Hear a call to its end; return what was heard."""
        line = Line(self.recording, wishes.speed, wishes.seconds)
        listener = Listener(wishes.caller, VoiceDetector(self.model))
        async for frame in line.frames():
            listener.hear(frame)
        listener.hang_up()
        return _summary(listener, line)


def _summary(listener: Listener, line: Line) -> CallResult:
    punctuality = line.punctuality
    talk = sum(spurt.end - spurt.start for spurt in listener.heard)
    return {
        "caller": listener.caller,
        "talk_spurts": [[spurt.start, spurt.end] for spurt in listener.heard],
        "talk_seconds": round(talk, 3),
        "silence_seconds": round(punctuality.frames * FRAME_SECONDS - talk, 3),
        "frames": punctuality.frames,
        "late_frames": punctuality.late_frames,
        "worst_lateness_ms": round(punctuality.worst_lateness * 1000, 3),
    }
