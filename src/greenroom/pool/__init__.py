"""The supervisor's side of the pool."""

from .launch import JobHandle
from .pool import PoolStats, ProcessInfo, ProcessPool
from .program import Invocation
from .reservation import Reservation

__all__ = ["Invocation", "JobHandle", "PoolStats", "ProcessInfo", "ProcessPool", "Reservation"]
