"""Header by which each answer of a worker's HTTP API names the worker."""

from __future__ import annotations

__all__ = ["WORKER_HEADER"]

WORKER_HEADER = "Greenroom-Worker"
