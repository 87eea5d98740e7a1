"""Source of sessions from LiveKit rooms: a worker of LiveKit's servers.

This package imports no module. Without ``greenroom[livekit]``, only :mod:`.source` can be imported.
"""
