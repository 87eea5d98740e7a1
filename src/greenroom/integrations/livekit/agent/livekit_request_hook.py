"""LiveKit's request hook (``on_request``, ``request_fnc``), as a request function of an app of Greenroom's."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from livekit.agents import JobRequest
from livekit.agents.job import JobAcceptArguments
from livekit.protocol import agent

from .... import job as greenroom_job
from ..job_order import Acceptance, Order

__all__ = ["RequestHook"]

_logger = logging.getLogger("greenroom.livekit")


class RequestHook:
    """Wrapper of the user's hook, which returns the hook's answer in Greenroom's terms."""

    def __init__(self, function: Callable[[JobRequest], Any]) -> None:
        self._function = function
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, request: greenroom_job.JobRequest) -> greenroom_job.Accept | greenroom_job.Reject:
        """Call the hook, and return its answer. Raises any error that the hook raises before its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = asyncio.create_task(self._call(_livekit_request(request.job.metadata, answer)), name="job_request")
        try:
            await asyncio.wait({answer, call}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the caller has given up
            call.cancel()
            raise
        if not answer.done():
            call.result()
            return greenroom_job.Reject("the request hook gave no answer")
        # The hook may go on after its answer, and the server does not wait for that.
        self._running.add(call)
        call.add_done_callback(self._over)
        return answer.result()  # type: ignore[no-any-return]

    async def _call(self, request: JobRequest) -> None:
        pending = self._function(request)
        if inspect.isawaitable(pending):
            await pending

    def _over(self, call: asyncio.Task[None]) -> None:
        self._running.discard(call)
        if not call.cancelled() and call.exception() is not None:
            _logger.error("the request hook failed after it had answered", exc_info=call.exception())


def _livekit_request(metadata: object, answer: asyncio.Future[Any]) -> JobRequest:
    def settle(verdict: object) -> None:
        if not answer.done():
            answer.set_result(verdict)

    async def accept(arguments: JobAcceptArguments) -> None:
        accepted = Acceptance(
            name=arguments.name,
            identity=arguments.identity,
            metadata=arguments.metadata,
            attributes=arguments.attributes or {},
        )
        settle(greenroom_job.Accept(accepted.answer()))

    async def reject(terminate: bool = False) -> None:
        settle(greenroom_job.Reject("rejected by the request hook", final=terminate))

    job = agent.Job.FromString(Order.decode(metadata).job)
    return JobRequest(job=job, on_reject=reject, on_accept=accept)
