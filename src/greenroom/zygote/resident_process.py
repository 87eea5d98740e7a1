"""Resident process: answers questions of the supervisor and receives news, but never has a job."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..app import App
from ..app_facts import REQUEST
from ..clean_text import clean, cut_end
from ..errors import ErrorInfo, PayloadError
from ..job import Job, JobProcess, JobRequest
from ..wire import messages as m
from ..wire import payload
from .request_hook import Verdict, bounded, decide

__all__ = ["Resident"]

_logger = logging.getLogger("greenroom")

Reply = Callable[[m.Answer, bytes], Awaitable[object]]


class Resident:
    """Dispatcher that calls the app for each question and each piece of news. ``reply`` sends an answer."""

    def __init__(self, app: App, proc: JobProcess, reply: Reply) -> None:
        self._app = app
        self._proc = proc
        self._reply = reply
        self._calls: dict[int, asyncio.Task[None]] = {}
        """Running calls whose answer is awaited, by the number of the question."""

    def ask(self, question: m.Ask, body: bytes) -> None:
        """Start a task that finds the answer. Other calls go on at the same time."""
        loop = asyncio.get_running_loop()
        self._calls[question.number] = loop.create_task(self._answer(question, body), name=question.topic)

    def withdraw(self, number: int) -> None:
        """Cancel the call for this question, because the supervisor does not wait for the answer any more."""
        call = self._calls.pop(number, None)
        if call is not None:
            call.cancel()

    def forget(self) -> None:
        """Forget all calls, and send none of their answers: the supervisor has answered the questions itself."""
        self._calls.clear()

    def hear(self, news: m.News, body: bytes) -> None:
        """Pass a piece of news to the app. An error of the app is logged, since news has no answer."""
        function = self._app.hears.get(news.topic)
        if function is None:
            return  # this process may run older code, which does not know the topic
        try:
            function(news.key, None if news.is_over else payload.decode(body))
        except Exception:
            _logger.exception("the app failed to handle the news of %s %s", news.topic, news.key)

    async def _answer(self, question: m.Ask, body: bytes) -> None:
        number, task = question.number, asyncio.current_task()

        def is_awaited() -> bool:
            return self._calls.get(number) is task

        if question.topic == REQUEST:
            request = JobRequest(Job.from_payload(question.job_id, body), self._proc, question.source)
            verdict, answer = await decide(self._app, request, is_awaited)
        else:
            verdict, answer = await self._consult(question.topic, body, is_awaited)
        if is_awaited():
            del self._calls[number]
            await self._reply(m.Answer(number, *verdict), answer)

    async def _consult(self, topic: str, body: bytes, is_awaited: Callable[[], bool]) -> tuple[Verdict, bytes]:
        """Return the verdict and the answer of an integration. An error of the integration becomes a rejection.

        Raises ``CancelledError`` when the answer is not awaited any more.
        """
        function = self._app.answers.get(topic)
        if function is None:
            return _no(f"the app does not answer {topic!r}")
        try:
            answer: Any = function(payload.decode(body))
            if inspect.isawaitable(answer):
                answer = await answer
            return Verdict(True), bounded(payload.encode(answer))
        except PayloadError as error:
            return _no(str(error))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not is_awaited():
                raise
            return _no(f"{ErrorInfo.of(error, limit=m.MAX_REASON)}")


def _no(cause: str) -> tuple[Verdict, bytes]:
    return Verdict(False, clean(cut_end(cause, m.MAX_REASON))), payload.encode(None)
