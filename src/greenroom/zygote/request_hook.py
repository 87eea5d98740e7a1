"""Request hook: the app's decision on an offered job."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import NamedTuple

from ..app import App
from ..clean_text import clean, cut_end
from ..errors import ErrorInfo, PayloadError
from ..job import Accept, JobRequest, Reject
from ..wire import payload
from ..wire.messages import MAX_ANSWER, MAX_REASON

__all__ = ["Verdict", "bounded", "decide"]

_logger = logging.getLogger("greenroom")


class Verdict(NamedTuple):
    """Decision on a job. The fields have the same order as in :class:`~greenroom.wire.messages.Answer`."""

    accepted: bool
    reason: str = ""
    final: bool = False


async def decide(app: App, request: JobRequest, is_awaited: Callable[[], bool]) -> tuple[Verdict, bytes]:
    """Call the app's request function. Return its verdict, and its answer for the source.

    An error of the function becomes a rejection. Raises ``CancelledError`` when the verdict is not awaited any more.
    """
    try:
        # This process may run older code, which has no request function.
        answer = True if app.request_fn is None else app.request_fn(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return _verdict(answer)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and not is_awaited():
            raise  # the question was withdrawn; otherwise the app has cancelled something itself
        _logger.exception("the request function failed for job %s", request.job.id)
        return _rejected(f"the app's request function raised {ErrorInfo.of(error, limit=MAX_REASON)}")


def _verdict(answer: object) -> tuple[Verdict, bytes]:
    if answer is True:
        answer = Accept()
    elif answer is False:
        answer = Reject()
    if isinstance(answer, Accept):
        try:
            return Verdict(True), bounded(payload.encode(dict(answer.answer)))
        except (PayloadError, TypeError, ValueError) as error:  # an app can set Accept.answer to any object
            return _rejected(f"the app's request function gave an answer that cannot be sent: {error}")
    if isinstance(answer, Reject):
        return _rejected(str(answer.reason) or "the app rejected it", bool(answer.final))
    kind = type(answer).__name__
    return _rejected(f"the app's request function returned a {kind} instead of True, False, Accept or Reject")


def bounded(answer: bytes) -> bytes:
    """Return the answer. Raises :class:`PayloadError` for an answer of more than ``MAX_ANSWER`` bytes."""
    if len(answer) > MAX_ANSWER:
        raise PayloadError(f"{len(answer)} bytes; an answer can have at most {MAX_ANSWER}")
    return answer


def _rejected(reason: str, final: bool = False) -> tuple[Verdict, bytes]:
    text = clean(cut_end(reason, MAX_REASON))
    return Verdict(False, text, final), payload.encode(None)
