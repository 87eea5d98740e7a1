"""Sources of sessions: each a module behind one small interface, none of which knows of another."""

from .base import Source
from .group import SourceGroup
from .http import HttpSource
from .livekit.source import LiveKitSource

__all__ = ["HttpSource", "LiveKitSource", "Source", "SourceGroup"]
