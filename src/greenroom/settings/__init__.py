"""Settings of an operator, as one frozen type.

Each setting is a field of one group below, with a default and a docstring. The name of a setting is unique among all
groups. The key in a file, the environment variable and the flag are made from that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..integrations.livekit.options import LiveKitOptions
from ..options import PoolOptions
from .worker_options import LogOptions, ServerOptions

__all__ = ["DEFAULTS", "LiveKitOptions", "LogOptions", "PoolOptions", "ServerOptions", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a worker, in groups."""

    pool: PoolOptions = field(default_factory=PoolOptions)
    """Settings of the pool."""
    server: ServerOptions = field(default_factory=ServerOptions)
    """Settings of the worker's API, and of its end."""
    livekit: LiveKitOptions = field(default_factory=LiveKitOptions)
    """Settings of the LiveKit source."""
    log: LogOptions = field(default_factory=LogOptions)
    """Settings of the log."""


DEFAULTS = {
    "start": Settings(),
    "dev": Settings(pool=PoolOptions(num_idle_processes=1), server=ServerOptions(drain_timeout=5.0)),
}
"""Defaults of each command."""
