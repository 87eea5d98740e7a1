"""The inference process that all jobs share, for plugins that ask for one, and how a job reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from livekit.agents.inference_runner import _InferenceRunner

from ...app import App
from ...errors import ErrorInfo, GreenroomError
from ...wire.frames import FrameDecoder, encode_frame
from ...zygote import services

__all__ = ["ANSWER", "FAILURE", "SERVICE", "InferenceClient", "InferenceFailed", "register"]

SERVICE = "livekit-inference"

ANSWER, NO_ANSWER, FAILURE = 1, 2, 3
"""Kinds of frames from the service: what the runner returned, that it returned ``None``, what it raised."""

_ATTEMPTS = 3
"""How often one request is sent: a runner that this very request crashes must not be crashed for ever."""
_PATIENCE = 20.0
"""Seconds in all for which a job looks for the service, which may be on its way up again."""
_INTERVAL = 0.05

_logger = logging.getLogger("greenroom.livekit")


class InferenceFailed(GreenroomError):
    """The runner raised, or the inference process could not be reached."""


def register(app: App) -> None:
    """Have the zygote run the service, if a plugin has registered a runner for it."""
    if _InferenceRunner.registered_runners:
        from .inference_service import serve

        app.services[SERVICE] = serve


class InferenceClient:
    """A job's connections to the service: one for each request, so that none waits for another's answer."""

    def __init__(self, generation: int) -> None:
        self._generation = generation

    async def run(self, method: str, data: bytes) -> bytes | None:
        """Have the runner of this method work on the data. Raises :class:`InferenceFailed`."""
        if method not in _InferenceRunner.registered_runners:
            known = ", ".join(sorted(_InferenceRunner.registered_runners)) or "none"
            raise InferenceFailed(f"no plugin has registered an inference runner {method!r} (there are: {known})")
        request = encode_frame(ANSWER, method.encode(), data)
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # it died in the midst of it
                return await self._ask(request)
        raise InferenceFailed(f"the inference process died {_ATTEMPTS} times while it worked on this request")

    async def _ask(self, request: bytes) -> bytes | None:
        reader, writer = await self._connect()
        try:
            writer.write(request)
            await writer.drain()
            decoder = FrameDecoder()
            while data := await reader.read(64 * 1024):
                for frame in decoder.feed(data):
                    return _result(frame.kind, frame.body)
            raise asyncio.IncompleteReadError(b"", None)
        finally:
            writer.close()

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


def _result(kind: int, body: bytes) -> bytes | None:
    if kind == FAILURE:
        raise InferenceFailed(body.decode("utf-8", "replace"))
    return None if kind == NO_ANSWER else body


def describe_failure(error: BaseException) -> bytes:
    return str(ErrorInfo.of(error)).encode("utf-8", "backslashreplace")


def runners() -> dict[str, Any]:
    return _InferenceRunner.registered_runners
