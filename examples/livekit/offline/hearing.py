"""The ear: PocketSphinx with a grammar of what a caller may say. It hears nothing else, and that reliably."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Decoder, get_model_path  # type: ignore[import-untyped]

from .speech import resample

__all__ = ["GRAMMAR", "listen"]

GRAMMAR = Path(__file__).with_name("caller.gram")
_RATE = 16000
_SILENCE = np.zeros(_RATE // 4, np.int16)


def listen(samples: NDArray[np.int16], rate: int) -> str:
    """What was said, in the words of the grammar; "" if it is none of its sentences."""
    heard = np.concatenate([_SILENCE, resample(samples, rate, _RATE), _SILENCE])
    decoder, lock = _decoder()
    with lock:
        decoder.start_utt()
        decoder.process_raw(heard.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


@functools.cache
def _decoder() -> tuple[Decoder, threading.Lock]:
    # A synthetic voice is far from the people that the model was trained on: with the usual beams the right
    # sentence is dropped on the way, and the best path through the lattice may end in the middle of one.
    decoder = Decoder(
        hmm=get_model_path("en-us/en-us"),
        dict=get_model_path("en-us/cmudict-en-us.dict"),
        lm=None,
        jsgf=str(GRAMMAR),
        beam=1e-120,
        pbeam=1e-120,
        wbeam=1e-100,
        maxhmmpf=-1,
        bestpath=False,
        loglevel="FATAL",
    )
    return decoder, threading.Lock()
