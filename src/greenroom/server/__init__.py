"""The worker: a pool, and what it needs to be run by an operator and used by programs."""

from .worker import Worker

__all__ = ["Worker"]
