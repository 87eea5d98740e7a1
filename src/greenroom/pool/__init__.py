"""The pool of warm processes, in the supervisor."""

from .handles import JobHandle, Reservation
from .pool import PoolStats, ProcessInfo, ProcessPool
from .resident import NoAnswer
from .shell.program import Invocation

__all__ = ["Invocation", "JobHandle", "NoAnswer", "PoolStats", "ProcessInfo", "ProcessPool", "Reservation"]
