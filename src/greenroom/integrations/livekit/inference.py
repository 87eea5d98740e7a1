"""The inference process that all jobs share, for plugins that ask for one, and how a job reaches it."""

from __future__ import annotations

import asyncio
import contextlib

from livekit.agents.inference_runner import _InferenceRunner

from ...errors import GreenroomError
from ...wire.frames import FrameDecoder, encode_frame
from ...zygote import services

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
"""Kinds of frames: a request; and from the service, that it works on it now, what the runner returned, that it
returned ``None``, or what it raised."""

_ATTEMPTS = 3
"""How often one request is sent: a runner that this very request crashes must not be crashed for ever."""
_PATIENCE = 20.0
"""Seconds in all for which a job looks for the service, which may be on its way up again."""
_INTERVAL = 0.05

RUN_TIMEOUT = 30.0
"""Seconds that a runner may take for one request: others wait for it meanwhile. Then the service is replaced."""
REQUEST_TIMEOUT = 60.0
"""Seconds for a request in all, also while the service works on others, or loads its models."""


class InferenceFailed(GreenroomError):
    """The runner raised, or the inference process could not be reached."""


class InferenceClient:
    """A job's connections to the service: one for each request, so that none waits for another's answer."""

    def __init__(self, generation: int) -> None:
        self._generation = generation

    async def run(self, method: str, data: bytes) -> bytes | None:
        """Have the runner of this method work on the data. Raises :class:`InferenceFailed`."""
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
                deaths += call.was_taken  # else it died of something else, before it came to this request
            finally:
                call.close()
        raise InferenceFailed(f"the inference process died {_ATTEMPTS} times while it worked on this request")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        give_up = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            for address in services.addresses(SERVICE, self._generation):
                with contextlib.suppress(OSError):  # not there (any more, or yet)
                    reader, writer = await asyncio.open_unix_connection(address)
                    if services.is_own_user(writer.get_extra_info("socket")):
                        return reader, writer
                    writer.close()
            if asyncio.get_running_loop().time() > give_up:
                raise InferenceFailed(
                    f"the inference process was not there for {_PATIENCE:g} s; see the worker's log for why. (It is "
                    f"forked from the zygote: with start_method='spawn' there is none)"
                )
            await asyncio.sleep(_INTERVAL)


class _Call:
    """One request on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.was_taken = False

    async def ask(self, request: bytes) -> bytes | None:
        """Raises ``OSError`` or ``EOFError`` if the service dies before it has answered."""
        self._writer.write(request)
        await self._writer.drain()
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                return await self._answer(deadline)
        except TimeoutError:
            # Not to be asked again: it would most likely hang again, and the next one, too, would be replaced.
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
