"""Which lines of a job's log are to be the same under LiveKit's own worker and under Greenroom's."""

from __future__ import annotations

__all__ = ["is_compared"]

_OF_THE_WORKER = {"initializing process", "process initialized", "process exiting", "Using selector: EpollSelector"}
"""What LiveKit's worker tells of a job's process, and Greenroom in its own words; what asyncio tells of each loop."""

_OF_THE_MOMENT = (
    "livekit_ffi::",
    "livekit::rtc_engine::",
    "event loop blocked for ",
    "process is unresponsive",
    "error running user callback for local_track_published",  # livekit-rtc: the event may come before the publication
)
"""What the native library tells of a race of its own, with the numbers of its handles; what a busy machine brings."""


def is_compared(message: str) -> bool:
    return message not in _OF_THE_WORKER and not message.startswith(_OF_THE_MOMENT)
