"""The same agent with LiveKit's voice-activity and end-of-turn models: `_preload` loads them by default."""

from benchmarks.images.livekit_app import preload, prewarm

__all__ = ["preload", "prewarm"]
