"""The voice: espeak-ng, as a library from PyPI's ``espeakng-loader``. Text to 16-bit PCM in a few milliseconds."""

from __future__ import annotations

import ctypes
import functools
import threading

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

__all__ = ["SpeechError", "resample", "say"]

Samples = NDArray[np.int16]

# What espeak-ng's speak_lib.h calls them.
_AUDIO_OUTPUT_SYNCHRONOUS, _PARAMETER_RATE, _CHARS_UTF8, _NO_ERROR = 2, 1, 1, 0
_NORMAL_WORDS_PER_MINUTE = 150
_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SpeechError(RuntimeError):
    """The engine cannot be had, does not know the voice, or gave no sound."""


def say(text: str, rate: int, *, voice: str = "en-us", speed: float = 1.0) -> Samples:
    """Speak ``text``; returns samples at ``rate`` per second, one channel.

    ``voice`` is one of espeak-ng's, with an optional variant: ``en-us+f3``.
    """
    engine = _engine()
    return resample(engine.say(text, voice, speed), engine.rate, rate)


def resample(samples: Samples, source: int, target: int) -> Samples:
    """Linear interpolation: good enough for a voice that has little above 4 kHz."""
    if source == target or not len(samples):
        return samples
    at = np.arange(len(samples) * target // source) * (source / target)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.int16)


class _Engine:
    """The library keeps one voice and one callback for the whole process: one text at a time."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise SpeechError(f"espeak-ng found no voices in {data.decode()}; reinstall espeakng-loader")
        self._pieces: list[Samples] = []
        self._callback = _SynthCallback(self._take)  # kept: the library has only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._lock = threading.Lock()

    def say(self, text: str, voice: str, speed: float) -> Samples:
        encoded = text.encode()
        with self._lock:
            if self._library.espeak_SetVoiceByName(voice.encode()) != _NO_ERROR:
                raise SpeechError(f"espeak-ng has no voice {voice!r}; `en-us` and `en-us+f3` are two that it has")
            self._library.espeak_SetParameter(_PARAMETER_RATE, int(_NORMAL_WORDS_PER_MINUTE * speed), 0)
            self._pieces.clear()
            self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
            return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on


@functools.cache
def _engine() -> _Engine:
    return _Engine()
