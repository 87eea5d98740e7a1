"""Providers for hearing, thinking and speaking, chosen by the environment; by default OpenAI, or a server with its API.

`STT`, `LLM`, `TTS` and `REALTIME` are ``PLUGIN`` or ``PLUGIN/MODEL``: ``deepgram/nova-3`` needs the package
``livekit-plugins-deepgram`` and the key that this plugin reads, ``DEEPGRAM_API_KEY``. `STT_BASE_URL` and so on name a
server other than the provider's own; for the OpenAI plugin ``OPENAI_BASE_URL`` names it for all of them.
`TURN_DETECTOR` is ``v1-mini``, which comes with livekit-agents and runs in the agent's process, or ``v1``, which runs
in LiveKit's cloud, together with a model that tells interruptions from other sounds.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from livekit.agents import TurnHandlingOptions, inference, llm, stt, tts

__all__ = ["language_model", "realtime_model", "speech_to_text", "text_to_speech", "turn_handling"]

DEFAULTS = {
    "STT": "openai/gpt-4o-mini-transcribe",
    "LLM": "openai/gpt-4.1-mini",
    "TTS": "openai/gpt-4o-mini-tts",
    "REALTIME": "openai/gpt-realtime",
}


def speech_to_text() -> stt.STT:
    return _plugin("STT").STT(**_options("STT"))  # type: ignore[no-any-return]


def language_model() -> llm.LLM:
    return _plugin("LLM").LLM(**_options("LLM"))  # type: ignore[no-any-return]


def text_to_speech() -> tts.TTS:
    options = _options("TTS")
    if _choice("TTS")[0] == "openai":
        options["response_format"] = "pcm"  # nothing to decode: the first sound comes sooner
    return _plugin("TTS").TTS(**options)  # type: ignore[no-any-return]


def realtime_model() -> llm.RealtimeModel:
    return _plugin("REALTIME").realtime.RealtimeModel(**_options("REALTIME"))  # type: ignore[no-any-return]


def turn_handling() -> TurnHandlingOptions:
    """Return the options that decide when the caller has finished, only pauses, or interrupts."""
    version = os.environ.get("TURN_DETECTOR", "v1-mini")
    in_cloud = version == "v1"
    return {
        "turn_detection": inference.TurnDetector(version=version),  # type: ignore[arg-type]
        "interruption": {"mode": "adaptive" if in_cloud else "vad"},
    }


def _choice(what: str) -> tuple[str, str]:
    plugin, _, model = os.environ.get(what, DEFAULTS[what]).partition("/")
    return plugin, model


def _plugin(what: str) -> ModuleType:
    name = _choice(what)[0]
    try:
        return importlib.import_module(f"livekit.plugins.{name}")
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{what}={os.environ.get(what)!r} needs a package: pip install livekit-plugins-{name}"
        ) from error


def _options(what: str) -> dict[str, Any]:
    options = {"model": _choice(what)[1], "base_url": os.environ.get(f"{what}_BASE_URL", "")}
    return {name: value for name, value in options.items() if value}


# LiveKit wants its plugins imported on the main thread; and what is imported here, before any process is forked, is
# paid for once.
for _what in DEFAULTS:
    _plugin(_what)
