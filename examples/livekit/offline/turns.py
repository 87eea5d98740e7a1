"""When the caller talks and when it is done: the server's voice activity detection, as the realtime API has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from livekit.local_inference import VAD, VAD_WINDOW_SAMPLES

from .speech import Samples, resample

__all__ = ["Turn", "TurnDetector", "TurnSettings"]

_MODEL_RATE = 16000
_WINDOW_SECONDS = VAD_WINDOW_SAMPLES / _MODEL_RATE
_LONGEST_TURN = 60.0


@dataclass(frozen=True)
class TurnSettings:
    """Of a session's ``turn_detection``; seconds."""

    threshold: float = 0.5
    padding: float = 0.3
    silence: float = 0.5

    @classmethod
    def of(cls, turn_detection: Mapping[str, Any]) -> TurnSettings:
        """From the API's words. Semantic detection, which looks at what was said, waits for silence here."""
        if turn_detection["type"] != "server_vad":
            return cls()
        return cls(
            threshold=turn_detection.get("threshold") or cls.threshold,
            padding=turn_detection.get("prefix_padding_ms", cls.padding * 1000) / 1000,
            silence=turn_detection.get("silence_duration_ms", cls.silence * 1000) / 1000,
        )


class Turn(NamedTuple):
    """The caller has started to talk, or has finished. `at` is in seconds since the session began."""

    kind: Literal["started", "stopped"]
    at: float
    audio: Samples  # of a turn that has stopped, at the rate that was fed


class TurnDetector:
    """Fed with audio as it comes. A turn starts with one window of voice and ends with a silence."""

    def __init__(self, rate: int, settings: TurnSettings, likelihood: Callable[[Samples], float] | None = None) -> None:
        self.settings = settings
        self._rate = rate
        self._likelihood = likelihood or VAD().predict
        self._waiting = np.zeros(0, np.int16)  # for a whole window of the model, at its rate
        self._kept = np.zeros(0, np.int16)
        self._fed = self._judged = 0.0
        self._talking = False
        self._silent_for = 0.0

    def keep(self, samples: Samples) -> None:
        """Of a client that tells by itself when the caller is done: nothing is found."""
        self._kept = np.concatenate([self._kept, samples])[-int(_LONGEST_TURN * self._rate) :]

    def feed(self, samples: Samples) -> list[Turn]:
        self._kept = np.concatenate([self._kept, samples])
        self._fed += len(samples) / self._rate
        self._waiting = np.concatenate([self._waiting, resample(samples, self._rate, _MODEL_RATE)])
        found = []
        while len(self._waiting) >= VAD_WINDOW_SAMPLES:
            window, self._waiting = np.split(self._waiting, [VAD_WINDOW_SAMPLES])
            found += self._judge(self._likelihood(window))
        return found

    def take(self) -> Samples:
        """All that was kept, and start anew: what a client commits by itself."""
        kept, self._kept = self._kept, np.zeros(0, np.int16)
        self._talking = False
        return kept

    def _judge(self, likelihood: float) -> list[Turn]:
        self._judged += _WINDOW_SECONDS
        voice = likelihood >= self.settings.threshold
        self._silent_for = 0.0 if voice else self._silent_for + _WINDOW_SECONDS
        if voice and not self._talking:
            self._talking = True
            self._keep_last(self.settings.padding)
            return [Turn("started", max(0.0, self._judged - self.settings.padding), self._kept[:0])]
        if self._talking and self._silent_for >= self.settings.silence:
            return [Turn("stopped", self._judged, self.take())]
        if not self._talking:
            self._keep_last(self.settings.padding)
        else:
            self._keep_last(_LONGEST_TURN)
        return []

    def _keep_last(self, seconds: float) -> None:
        ahead = self._fed - self._judged  # fed, but not judged yet
        self._kept = self._kept[-max(1, int((seconds + ahead) * self._rate)) :]
