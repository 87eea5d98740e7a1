"""`greenroom top`: a live view of a worker in the terminal, fed by its events."""

from .command import register

__all__ = ["register"]
