"""Marks on each answer: the name of the worker, and the end of the connection while the worker drains."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ...worker_header import WORKER_HEADER

__all__ = ["AnswerMarks"]


class AnswerMarks:
    """Marks of one worker's answers. ``is_draining`` returns true from the beginning of the drain on."""

    def __init__(self, worker_name: str, is_draining: Callable[[], bool]) -> None:
        self._worker_name = worker_name
        self._is_draining = is_draining

    def put(self, response: web.StreamResponse) -> None:
        """Mark an answer whose headers are not sent yet."""
        response.headers[WORKER_HEADER] = self._worker_name
        if self._is_draining():
            # A client that keeps its connection would send all its requests here, to be rejected, until the end.
            response.force_close()
