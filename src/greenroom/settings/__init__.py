"""Everything an operator can set, as one frozen type.

A setting is declared once: as a field, with its default and a docstring, of one of the groups below. Its name is
unique among all groups; from it come its key in a file, its environment variable and its flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..options import PoolOptions
from .livekit import LiveKitOptions
from .log import LogOptions
from .server import ServerOptions

__all__ = ["DEFAULTS", "LiveKitOptions", "LogOptions", "PoolOptions", "ServerOptions", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a worker behaves, group by group."""

    pool: PoolOptions = field(default_factory=PoolOptions)
    """The processes."""
    server: ServerOptions = field(default_factory=ServerOptions)
    """The worker's API, and its end."""
    livekit: LiveKitOptions = field(default_factory=LiveKitOptions)
    """LiveKit rooms as a source of sessions."""
    log: LogOptions = field(default_factory=LogOptions)
    """The log."""


DEFAULTS = {
    "start": Settings(),
    "dev": Settings(pool=PoolOptions(num_idle_processes=1), server=ServerOptions(drain_timeout=5.0)),
}
"""What holds for each command where nothing is set."""
