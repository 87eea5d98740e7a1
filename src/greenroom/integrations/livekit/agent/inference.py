"""Client of the inference process, which all jobs share, for the plugins that use one."""

from __future__ import annotations

import asyncio
import contextlib

from livekit.agents.inference_runner import _InferenceRunner

from ....errors import GreenroomError
from ....system.peer import is_own_user
from ....wire.frames import FrameDecoder, encode_frame
from ....zygote import services

__all__ = [
    "ANSWER",
    "FAILURE",
    "NO_ANSWER",
    "RUN_TIMEOUT",
    "SERVICE",
    "TAKEN",
    "InferenceClient",
    "InferenceFailed",
]

SERVICE = "livekit-inference"

REQUEST, TAKEN, ANSWER, NO_ANSWER, FAILURE = range(1, 6)
"""Kinds of frames. The job sends REQUEST. The service sends TAKEN when its work on the request begins, and then one of
three: ANSWER (the runner's result), NO_ANSWER (the result is ``None``) or FAILURE (the runner's error)."""

_ATTEMPTS = 3
"""Deaths of the service, at work on one request, after which the request fails: the request may cause them."""
_PATIENCE = 20.0
"""Seconds in all for which a job tries to connect to the service. The service may be starting again."""
_INTERVAL = 0.05

RUN_TIMEOUT = 30.0
"""Seconds that a runner may take for one request, while other requests wait. Then the service is replaced."""
REQUEST_TIMEOUT = 60.0
"""Seconds for a request in all, including the wait for other requests, and for the models to load."""


class InferenceFailed(GreenroomError):
    """Error of a runner, or failure to reach the inference process."""


class InferenceClient:
    """Job's connections to the service. Each request has its own connection, so it waits for no other answer."""

    def __init__(self, generation: int) -> None:
        self._generation = generation

    async def run(self, method: str, data: bytes) -> bytes | None:
        """Send the data to the runner of this method, and return its result. Raises :class:`InferenceFailed`."""
        if method not in _InferenceRunner.registered_runners:
            known = ", ".join(sorted(_InferenceRunner.registered_runners)) or "none"
            raise InferenceFailed(f"no plugin has registered an inference runner {method!r} (there are: {known})")
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._ask(encode_frame(REQUEST, method.encode(), data))
        except TimeoutError:
            raise InferenceFailed(
                f"the inference process did not answer within {REQUEST_TIMEOUT:g} s: it works on other requests, or "
                f"still loads its models"
            ) from None

    async def _ask(self, request: bytes) -> bytes | None:
        deaths = 0
        while deaths < _ATTEMPTS:
            call = _Call(*await self._connect())
            try:
                return await call.ask(request)
            except (OSError, EOFError):
                deaths += call.was_taken  # a service that had not taken this request died of another cause
            finally:
                call.close()
        raise InferenceFailed(f"the inference process died {_ATTEMPTS} times while it worked on this request")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        give_up = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            for address in services.addresses(SERVICE, self._generation):
                with contextlib.suppress(OSError):  # the service is gone, or is not up yet
                    reader, writer = await asyncio.open_unix_connection(address)
                    if is_own_user(writer.get_extra_info("socket")):
                        return reader, writer
                    writer.close()
            if asyncio.get_running_loop().time() > give_up:
                raise InferenceFailed(
                    f"the inference process was missing for {_PATIENCE:g} s. See the worker's log for the cause. (With "
                    f"start_method='spawn' there is no inference process, since the zygote forks it)"
                )
            await asyncio.sleep(_INTERVAL)


class _Call:
    """One request on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.was_taken = False

    async def ask(self, request: bytes) -> bytes | None:
        """Send a request and return the answer. Raises ``OSError`` or ``EOFError`` if the service dies before it.

        Raises :class:`InferenceFailed` if the runner fails, or takes too long.
        """
        self._writer.write(request)
        await self._writer.drain()
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                return await self._answer(deadline)
        except TimeoutError:
            # No other attempt: the next service would most likely hang as well, and would be replaced, too.
            raise InferenceFailed(f"the runner did not return within {RUN_TIMEOUT:g} s") from None

    async def _answer(self, deadline: asyncio.Timeout) -> bytes | None:
        decoder = FrameDecoder()
        while data := await self._reader.read(64 * 1024):
            for frame in decoder.feed(data):
                if frame.kind != TAKEN:
                    return _result(frame.kind, frame.body)
                self.was_taken = True
                deadline.reschedule(asyncio.get_running_loop().time() + RUN_TIMEOUT)
        raise EOFError

    def close(self) -> None:
        self._writer.close()


def _result(kind: int, body: bytes) -> bytes | None:
    if kind == FAILURE:
        raise InferenceFailed(body.decode("utf-8", "replace"))
    return None if kind == NO_ANSWER else body
