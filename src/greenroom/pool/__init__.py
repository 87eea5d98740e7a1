"""The pool of warm processes, in the supervisor."""

from .handles import JobHandle, Reservation
from .pool import PoolStats, ProcessInfo, ProcessPool
from .resident_client import NoAnswer
from .shell.script_client import Invocation

__all__ = ["Invocation", "JobHandle", "NoAnswer", "PoolStats", "ProcessInfo", "ProcessPool", "Reservation"]
