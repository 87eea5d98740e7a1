"""The supervisor's side of the pool."""

from .launch import JobHandle
from .pool import PoolStats, ProcessInfo, ProcessPool
from .reservation import Reservation

__all__ = ["JobHandle", "PoolStats", "ProcessInfo", "ProcessPool", "Reservation"]
