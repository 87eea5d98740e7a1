"""The app's word on a session that is offered to it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import NamedTuple

from ..app import App
from ..errors import ErrorInfo, PayloadError
from ..job import Accept, JobRequest, Reject
from ..texts import clean, cut_end
from ..wire import payload
from ..wire.messages import MAX_ANSWER, MAX_REASON

__all__ = ["Verdict", "decide"]

_logger = logging.getLogger("greenroom")


class Verdict(NamedTuple):
    """In the order in which :class:`~greenroom.wire.messages.Answer` has it."""

    accepted: bool
    reason: str = ""
    final: bool = False


async def decide(app: App, request: JobRequest) -> tuple[Verdict, bytes]:
    """Ask the app's request function; whatever it does, there is a verdict, and an answer for the source."""
    try:
        # A process of older code may have none, where the present code has.
        said = True if app.request_fn is None else app.request_fn(request)
        if inspect.isawaitable(said):
            said = await said
        return _verdict(said)
    except (Exception, asyncio.CancelledError) as error:  # nobody cancels this; something that it awaited was cancelled
        _logger.exception("the request function failed for job %s", request.job.id)
        return _rejected(f"the app's request function raised {ErrorInfo.of(error, limit=MAX_REASON)}")


def _verdict(said: object) -> tuple[Verdict, bytes]:
    if said is True:
        said = Accept()
    elif said is False:
        said = Reject()
    if isinstance(said, Accept):
        try:
            return Verdict(True), _bounded(payload.encode(dict(said.answer)))
        except (PayloadError, TypeError, ValueError) as error:  # its attribute can be set to anything
            return _rejected(f"the app's request function gave an answer that cannot be sent: {error}")
    if isinstance(said, Reject):
        return _rejected(str(said.reason) or "the app turned it down", bool(said.final))
    kind = type(said).__name__
    return _rejected(f"the app's request function returned a {kind} instead of True, False, Accept or Reject")


def _bounded(answer: bytes) -> bytes:
    if len(answer) > MAX_ANSWER:
        raise PayloadError(f"{len(answer)} bytes; an answer can have {MAX_ANSWER}")
    return answer


def _rejected(reason: str, final: bool = False) -> tuple[Verdict, bytes]:
    text = clean(cut_end(reason, MAX_REASON))
    return Verdict(False, text, final), payload.encode(None)
