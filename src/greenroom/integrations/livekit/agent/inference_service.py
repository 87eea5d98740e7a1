"""Inference process: runs the runners that plugins have registered, one request after the other.

LiveKit's own process does the same, since runners expect one caller at a time. The process holds no state of a
session, so it may die at any time. Then the zygote starts it again, and each waiting client repeats its request.
``faulthandler`` ends a process that hangs, and writes its stack to the log. The thread of ``faulthandler`` needs no
GIL.
"""

from __future__ import annotations

import faulthandler
import logging
import selectors
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from livekit.agents.inference_runner import _InferenceRunner

from ....app import App
from ....errors import ErrorInfo
from ....system.peer import is_own_user
from ....wire.frames import Frame, FrameDecoder, FrameError, encode_frame
from . import inference
from .inference import ANSWER, FAILURE, NO_ANSWER, SERVICE, TAKEN
from .stack_dumps import dump_on_signal

__all__ = ["register"]

_CHUNK = 64 * 1024
_SEND_TIMEOUT = 2.0
"""Seconds that a client may take to read its answer, while all others wait."""
_INITIALIZE_TIMEOUT = 300.0
"""Seconds in which one runner must load its models. LiveKit's own worker allows this time for all runners together."""
_GRACE = 1.0
"""Seconds by which the client gives up before this process ends. A client whose service dies would ask again."""

_logger = logging.getLogger("greenroom.livekit")


def register(app: App) -> None:
    """Have the zygote run the service, if a plugin has registered a runner for it."""
    if _InferenceRunner.registered_runners:
        app.services[SERVICE] = _serve


def _serve(listener: socket.socket) -> NoReturn:
    """Load the models, then answer requests for ever. A client that connects meanwhile is answered afterwards."""
    dump_on_signal()
    ready = {method: _initialized(method, kind) for method, kind in _InferenceRunner.registered_runners.items()}
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                _accept(listener, selector)
            else:
                _attend(key.data, selector, ready)


class _Caller:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = FrameDecoder()


def _initialized(method: str, kind: Any) -> Any:
    """Return the runner, or its error, which each client of this runner receives. Other runners may work."""
    try:
        with _ended_after(_INITIALIZE_TIMEOUT):
            runner = kind()
            runner.initialize()
    except Exception as error:
        _logger.exception("the inference runner %s could not be initialized", method)
        return error
    return runner


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer than ``seconds``."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    with suppress(OSError):  # the client is gone again
        sock, _ = listener.accept()
        if not is_own_user(sock):
            sock.close()
            return
        sock.settimeout(_SEND_TIMEOUT)
        selector.register(sock, selectors.EVENT_READ, _Caller(sock))


def _attend(caller: _Caller, selector: selectors.BaseSelector, ready: dict[str, Any]) -> None:
    try:
        data = caller.sock.recv(_CHUNK)
        for frame in caller.decoder.feed(data):
            caller.sock.sendall(encode_frame(TAKEN, b""))
            caller.sock.sendall(_answer(frame, ready))
    except (OSError, FrameError):  # the client has died, does not read, or sends an invalid frame
        data = b""
    if not data:
        selector.unregister(caller.sock)
        caller.sock.close()


def _answer(request: Frame, ready: dict[str, Any]) -> bytes:
    method = request.header.decode("utf-8", "replace")
    try:
        runner = ready[method]
        if isinstance(runner, Exception):
            raise runner
        with _ended_after(inference.RUN_TIMEOUT + _GRACE):
            result = runner.run(request.body)
        return encode_frame(NO_ANSWER, b"") if result is None else encode_frame(ANSWER, b"", bytes(result))
    except Exception as error:
        traceback.print_exc()
        return encode_frame(FAILURE, b"", str(ErrorInfo.of(error)).encode())
