"""LiveKit rooms as a source of sessions: a worker as LiveKit's servers know it.

This package itself imports nothing: without ``greenroom[livekit]`` only :mod:`.source` can be loaded.
"""
