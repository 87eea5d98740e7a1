"""A LiveKit agent without models: the framework, its native library mapped, its HTTP client made.

`livekit.agents.ipc._preload` is what LiveKit's own worker runs once in its forkserver. It starts no thread.
"""

import livekit.agents


def preload() -> None:
    import livekit.agents.ipc._preload  # noqa: F401


def prewarm() -> None:
    assert livekit.agents.__version__
