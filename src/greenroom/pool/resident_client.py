"""Interface of sources to the resident process, which answers questions and gets news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GreenroomError
from ..options import checked_seconds
from ..wire import payload
from .core import vocabulary as v
from .core.resident import takes
from .shell.shell import Shell

__all__ = ["NoAnswer", "ResidentClient"]


class NoAnswer(GreenroomError):
    """Failure of the resident process to answer a question.

    ``was_lost`` is true if the process ended while it had the question.
    """

    def __init__(self, message: str, *, was_lost: bool = False) -> None:
        super().__init__(message)
        self.was_lost = was_lost


class ResidentClient:
    """Client of the resident process of the serving code. After a loss or a reload, another process takes its place.

    An integration declares the topics of its questions and news by ``App.answers`` and ``App.hears``.
    """

    def __init__(self, find_shell: Callable[[], Shell | None]) -> None:
        self._find_shell = find_shell

    def takes(self, topic: str) -> bool:
        """Return true if the app that serves answers questions, or gets news, of a topic."""
        shell = self._find_shell()
        serving = shell.core.pool.serving if shell is not None else None
        return serving is not None and takes(serving.facts, topic)

    async def ask(self, topic: str, data: Any = None, *, timeout: float) -> Any:
        """Ask the app a question and return the answer. Raises :class:`NoAnswer`, also after ``timeout`` seconds."""
        shell = self._find_shell()
        if shell is None:
            raise NoAnswer("the pool is not open")
        body = payload.encode(data)
        number, future = shell.callers.question()
        shell.report(v.AskResident(number, topic, body, checked_seconds("timeout", timeout)))
        answer = await future
        if not answer.accepted:
            raise NoAnswer(answer.reason, was_lost=answer.was_lost)
        return payload.decode(answer.body)

    def set_news(self, topic: str, key: str, data: Any) -> None:
        """Send news to the resident process, and later to each process that takes its place.

        The news holds until :meth:`drop_news`, or until other news with the same topic and key. On a closed pool this
        does nothing.
        """
        self._report(v.SetNews(topic, key, payload.encode(data)))

    def drop_news(self, topic: str, key: str) -> None:
        """Notify the resident process that a piece of news does not hold any more."""
        self._report(v.SetNews(topic, key, None))

    def _report(self, news: v.SetNews) -> None:
        shell = self._find_shell()
        if shell is not None and shell.core.pool.news.get((news.topic, news.key)) != news.body:
            shell.report(news)
