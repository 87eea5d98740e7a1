"""The settings of a realtime session: what it begins with, and how a ``session.update`` changes them."""

from __future__ import annotations

from typing import Any

from .audio import SPEECH_RATE
from .openai_api import new_id

__all__ = ["SERVER_VAD", "merge", "new_settings"]

SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}


def new_settings(model: str) -> dict[str, Any]:
    pcm = {"type": "audio/pcm", "rate": SPEECH_RATE}
    heard = {"format": pcm, "transcription": None, "noise_reduction": None, "turn_detection": dict(SERVER_VAD)}
    return {
        "object": "realtime.session",
        "type": "realtime",
        "id": new_id("sess"),
        "model": model,
        "instructions": "",
        "output_modalities": ["audio"],
        "tools": [],
        "tool_choice": "auto",
        "audio": {"input": heard, "output": {"format": pcm, "voice": "marin", "speed": 1.0}},
    }


def merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """A setting that is not named stays as it is."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict) and name in ("audio", "input", "output"):
            merge(settings[name], value)
        else:
            settings[name] = value
