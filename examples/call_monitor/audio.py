"""A recorded call: read it, cut it into the frames that a telephone line brings, play it in real time."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

SAMPLE_RATE = 8000
FRAME_SECONDS = 0.020
FRAME_SAMPLES = int(SAMPLE_RATE * FRAME_SECONDS)


class RecordingError(ValueError):
    """The file is not what a telephone line carries."""


def read_recording(path: Path) -> Samples:
    """Read a WAV file of telephone audio: 8 kHz, one channel, 16 bits."""
    with wave.open(str(path), "rb") as file:
        found = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if found != (SAMPLE_RATE, 1, 2):
            raise RecordingError(f"{path.name}: need 8000 Hz, 1 channel, 2 bytes a sample; found {found}")
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16, copy=False)


def frames_of(samples: Samples, seconds: float | None = None) -> Iterator[Samples]:
    """Cut samples into whole frames, up to a limit in seconds; a last piece is filled up with silence."""
    if seconds is not None:
        samples = samples[: round(seconds * SAMPLE_RATE)]
    for start in range(0, len(samples), FRAME_SAMPLES):
        frame = samples[start : start + FRAME_SAMPLES]
        yield frame if len(frame) == FRAME_SAMPLES else np.pad(frame, (0, FRAME_SAMPLES - len(frame)))


@dataclass
class Punctuality:
    """How well the frames of a call kept to the clock."""

    frames: int = 0
    late_frames: int = 0
    worst_lateness: float = 0.0

    def note(self, lateness: float, allowed: float) -> None:
        """Count one frame; it is late when the next one was due already, a gap that a caller could hear."""
        self.frames += 1
        self.late_frames += lateness > allowed
        self.worst_lateness = max(self.worst_lateness, lateness)


@dataclass
class Line:
    """Brings a recording's frames at the pace at which a telephone line would."""

    samples: Samples
    speed: float = 1.0
    seconds: float | None = None
    punctuality: Punctuality = field(default_factory=Punctuality)

    async def frames(self) -> AsyncIterator[Samples]:
        """Yield each frame when its last sample has been heard.

        Each due time counts from the start of the call, not from the frame before, so that the small
        oversleeping of each wait never adds up.
        """
        step = FRAME_SECONDS / self.speed
        clock = asyncio.get_running_loop().time
        began = clock()
        for number, frame in enumerate(frames_of(self.samples, self.seconds), start=1):
            due = began + number * step
            # Sleeps even when late: sleep(0) lets the process's other tasks run, heartbeats among them.
            await asyncio.sleep(max(0.0, due - clock()))
            self.punctuality.note(clock() - due, allowed=step)
            yield frame
