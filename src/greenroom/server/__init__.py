"""Worker: a pool with its sources of jobs, its HTTP API, and its metrics, logs and traces."""

from .worker import Worker

__all__ = ["Worker"]
