"""The same agent, with LiveKit's native runtime started before the session arrives.

The runtime starts threads, so it is started in each process: a forked copy of it does not work.
"""

from benchmarks.images.livekit_app import preload

__all__ = ["preload", "prewarm"]


def prewarm() -> None:
    from livekit.rtc._ffi_client import FfiClient

    assert FfiClient.instance is not None
